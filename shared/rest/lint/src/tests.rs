use std::path::Path;

use prost_reflect::DescriptorPool;

use crate::{Rules, breaking, lint, without_comments};

/// Compiles a contract whose body follows the imports.
fn compile(body: &str) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("test.proto");
    let head = "syntax = \"proto3\";\npackage t.v1;\nimport \"cloud/options/v1/options.proto\";\n\
                import \"google/api/annotations.proto\";\nimport \"google/api/field_behavior.proto\";\n\
                import \"google/protobuf/timestamp.proto\";\n";
    std::fs::write(&file, format!("{head}{body}")).unwrap();
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../proto");
    cloud_rest_build::descriptors(&[dir.path(), &shared], &[file]).unwrap()
}

fn pool(body: &str) -> DescriptorPool {
    DescriptorPool::decode(compile(body).as_slice()).unwrap()
}

/// A contract without a fault.
const GOOD: &str = r#"
// Things.
service ThingService {
  // One.
  rpc GetThing(GetThingRequest) returns (Thing) {
    option (google.api.http) = {get: "/things/{id}"};
  }
  // More.
  rpc CreateThing(CreateThingRequest) returns (Thing) {
    option (google.api.http) = {post: "/things" body: "*"};
    option (cloud.options.v1.method) = {success_code: 201};
  }
  // Later.
  rpc DropThing(DropThingRequest) returns (Thing) {
    option (google.api.http) = {post: "/things/{id}/drop" body: "*"};
    option (cloud.options.v1.method) = {not_built: true};
  }
  // Changes.
  rpc WatchThings(WatchThingsRequest) returns (stream Thing) {
    option (google.api.http) = {get: "/things:watch"};
  }
}
// A thing.
message Thing {
  // Its colour.
  enum Color {
    // None.
    COLOR_UNSPECIFIED = 0;
    // Red.
    RED = 1;
    // Blue.
    BLUE = 2;
  }
  // Its id.
  string id = 1;
  // Its colour.
  Color color = 2;
  // Words.
  map<string, string> labels = 3;
  // When.
  google.protobuf.Timestamp made_at = 4;
  // Where from.
  oneof source {
    // A file.
    string file = 5;
    // Another thing.
    string thing = 6;
  }
  // How many.
  optional int32 count = 7;
  // Its size.
  uint32 size = 8 [(cloud.options.v1.rules) = {min: 1, max: 10}];
  // Later.
  string later = 9 [(cloud.options.v1.rules) = {not_built: true, max_len: 9}];
}
// See GetThing.
message GetThingRequest {
  // Which.
  string id = 1 [(google.api.field_behavior) = REQUIRED];
}
// See CreateThing.
message CreateThingRequest {
  // The thing.
  Thing thing = 1 [(google.api.field_behavior) = REQUIRED];
}
// See DropThing.
message DropThingRequest {
  // Which.
  string id = 1 [(google.api.field_behavior) = REQUIRED];
}
// See WatchThings.
message WatchThingsRequest {}
"#;

/// The contract with one change, which must be one.
fn changed(from: &str, to: &str) -> DescriptorPool {
    assert_eq!(GOOD.matches(from).count(), 1, "`{from}` is there once");
    pool(&GOOD.replace(from, to))
}

#[test]
fn a_good_contract_passes() {
    assert_eq!(lint(&pool(GOOD), "t.v1", Rules::Public), Vec::<String>::new());
    assert_eq!(breaking(&pool(GOOD), &pool(GOOD), &["t.v1"]), Vec::<String>::new());
}

#[test]
fn every_rule_finds_its_fault() {
    let cases = [
        ("  // Its id.\n", "", "t.v1.Thing.id has no comment"),
        ("// A thing.\n", "", "t.v1.Thing has no comment"),
        ("// Things.\n", "", "t.v1.ThingService has no comment"),
        ("  // One.\n", "", "t.v1.ThingService.GetThing has no comment"),
        ("    // Red.\n", "", "t.v1.Thing.RED has no comment"),
        ("string file = 5", "string theFile = 5", "t.v1.Thing.theFile is not lower_snake"),
        ("    RED = 1", "    Red = 1", "t.v1.Thing.Red is not UPPER_SNAKE"),
        ("COLOR_UNSPECIFIED = 0", "NONE = 0", "t.v1.Thing.Color has `NONE` for zero instead of `COLOR_UNSPECIFIED`"),
        ("made_at = 4", "made = 4", "t.v1.Thing.made is a time whose name does not end in _at"),
        ("map<string, string>", "map<int32, string>", "t.v1.Thing.labels has keys that are not strings"),
        ("{min: 1, max: 10}", "{min: 11, max: 10}", "t.v1.Thing.size has a min above its max"),
        (
            "{not_built: true, max_len: 9}",
            "{pattern: \"(\"}",
            "t.v1.Thing.later has a pattern that is not a regular expression",
        ),
        ("service ThingService", "service Things", "t.v1.Things is not called …Service"),
        (
            "rpc GetThing(GetThingRequest)",
            "rpc GetThing(CreateThingRequest)",
            "t.v1.ThingService.GetThing: t.v1.CreateThingRequest has no field `id`",
        ),
        (
            "rpc GetThing(GetThingRequest)",
            "rpc GetOne(GetThingRequest)",
            "t.v1.ThingService.GetOne takes GetThingRequest instead of GetOneRequest",
        ),
        (
            "GetThingRequest) returns (Thing)",
            "GetThingRequest) returns (DropThingRequest)",
            "t.v1.ThingService.GetThing answers with DropThingRequest instead of GetThingResponse or a resource",
        ),
        (
            "    option (google.api.http) = {get: \"/things/{id}\"};\n",
            "",
            "t.v1.ThingService.GetThing has no google.api.http",
        ),
        (
            "{get: \"/things/{id}\"}",
            "{get: \"/things:watch\"}",
            "t.v1.ThingService.WatchThings has the route GET /things:watch of t.v1.ThingService.GetThing",
        ),
        (
            "{get: \"/things/{id}\"}",
            "{get: \"/things/{nope}\"}",
            "t.v1.ThingService.GetThing: t.v1.GetThingRequest has no field `nope`",
        ),
        (
            "{get: \"/things/{id}\"}",
            "{get: \"/things/{id}:get\"}",
            "t.v1.ThingService.GetThing: the path `/things/{id}:get` has text after the parameter `{id}:get`, which the router cannot match",
        ),
        (
            "{get: \"/things/{id}\"}",
            "{get: \"/things/{id}\" body: \"*\"}",
            "t.v1.ThingService.GetThing: GET has a body, which proxies drop",
        ),
        (
            "{get: \"/things/{id}\"}",
            "{post: \"/things/{id}\" body: \"*\"}",
            "t.v1.ThingService.GetThing is a POST instead of a GET",
        ),
        (
            "{post: \"/things\" body: \"*\"}",
            "{post: \"/things\"}",
            "t.v1.ThingService.CreateThing is a POST without a body",
        ),
        ("{success_code: 201}", "{success_code: 200}", "t.v1.ThingService.CreateThing creates and answers 200"),
        (
            "// See GetThing.\nmessage GetThingRequest {\n  // Which.\n  string id = 1 [(google.api.field_behavior) = REQUIRED];",
            "// See GetThing.\nmessage GetThingRequest {\n  // Which.\n  string id = 1;",
            "t.v1.ThingService.GetThing has `id` in its path, which is not REQUIRED",
        ),
    ];
    for (from, to, problem) in cases {
        let problems = lint(&changed(from, to), "t.v1", Rules::Public);
        assert!(problems.iter().any(|found| found == problem), "{problem}\n  found: {problems:#?}");
    }
}

#[test]
fn every_breaking_change_is_found_and_named() {
    let cases = [
        ("  // Its id.\n  string id = 1;\n", "", "t.v1.Thing.id was removed"),
        (
            "string id = 1;\n  // Its colour.\n  Color",
            "string id = 11;\n  // Its colour.\n  Color",
            "t.v1.Thing.id changed its number from 1 to 11",
        ),
        (
            "string id = 1;\n  // Its colour.\n  Color",
            "string key = 1;\n  // Its colour.\n  Color",
            "t.v1.Thing.id changed its name from id to key",
        ),
        (
            "string id = 1;\n  // Its colour.\n  Color",
            "bytes id = 1;\n  // Its colour.\n  Color",
            "t.v1.Thing.id changed its type from string to bytes",
        ),
        (
            "string id = 1;\n  // Its colour.\n  Color",
            "repeated string id = 1;\n  // Its colour.\n  Color",
            "t.v1.Thing.id changed its type from string to repeated string",
        ),
        (
            "map<string, string>",
            "map<string, int64>",
            "t.v1.Thing.labels changed its type from map<string, string> to map<string, int64>",
        ),
        ("optional int32 count", "int32 count", "t.v1.Thing.count changed its presence from explicit to implicit"),
        (
            "    string thing = 6;\n  }\n",
            "  }\n  // Another thing.\n  string thing = 6;\n",
            "t.v1.Thing.thing changed its oneof from source to none",
        ),
        (
            "uint32 size = 8 [",
            "uint32 size = 8 [(google.api.field_behavior) = REQUIRED, ",
            "t.v1.Thing.size became required",
        ),
        ("{min: 1, max: 10}", "{min: 1, max: 9}", "t.v1.Thing.size takes less than before"),
        ("{min: 1, max: 10}", "{not_built: true}", "t.v1.Thing.size is no longer built"),
        ("    // Blue.\n    BLUE = 2;\n", "", "t.v1.Thing.BLUE was removed"),
        ("BLUE = 2", "BLUE = 3", "t.v1.Thing.BLUE changed its number from 2 to 3"),
        ("BLUE = 2", "GREEN = 2", "t.v1.Thing.BLUE changed its name from BLUE to GREEN"),
        ("service ThingService", "service OtherService", "t.v1.ThingService was removed"),
        ("rpc DropThing", "rpc LoseThing", "t.v1.ThingService.DropThing was removed"),
        (
            "GetThingRequest) returns (Thing)",
            "GetThingRequest) returns (stream Thing)",
            "t.v1.ThingService.GetThing changed its streaming from none to the server's",
        ),
        (
            "GetThingRequest) returns (Thing)",
            "GetThingRequest) returns (DropThingRequest)",
            "t.v1.ThingService.GetThing changed its response from t.v1.Thing to t.v1.DropThingRequest",
        ),
        (
            "{get: \"/things/{id}\"}",
            "{get: \"/thing/{id}\"}",
            "t.v1.ThingService.GetThing lost the route GET /things/{id}",
        ),
        (
            "{post: \"/things\" body: \"*\"}",
            "{post: \"/things\" body: \"thing\"}",
            "t.v1.ThingService.CreateThing lost the route POST /things (body *)",
        ),
        (
            "{success_code: 201}",
            "{success_code: 200}",
            "t.v1.ThingService.CreateThing changed its success code from 201 to 200",
        ),
        (
            "{success_code: 201}",
            "{success_code: 201, not_built: true}",
            "t.v1.ThingService.CreateThing is no longer built",
        ),
        (
            "message WatchThingsRequest {}",
            "message WatchThingsRequest {\n  string x = 1 [(google.api.field_behavior) = REQUIRED];\n}",
            "t.v1.WatchThingsRequest.x is new and required",
        ),
    ];
    for (from, to, problem) in cases {
        let problems = breaking(&pool(GOOD), &changed(from, to), &["t.v1"]);
        assert!(problems.iter().any(|found| found == problem), "{problem}\n  found: {problems:#?}");
    }
    let removed = GOOD
        .replace("// See WatchThings.\nmessage WatchThingsRequest {}\n", "")
        .replace("WatchThingsRequest", "GetThingRequest");
    let problems = breaking(&pool(GOOD), &pool(&removed), &["t.v1"]);
    assert!(problems.contains(&"t.v1.WatchThingsRequest was removed".to_owned()), "{problems:#?}");
    let without_enum = GOOD
        .replace("  Color color = 2;", "  string color = 2;")
        .replace("enum Color", "enum Hue")
        .replace("COLOR_", "HUE_");
    let problems = breaking(&pool(GOOD), &pool(&without_enum), &["t.v1"]);
    assert!(problems.contains(&"t.v1.Thing.Color was removed".to_owned()), "{problems:#?}");
}

#[test]
fn adding_is_free_and_so_is_what_was_not_built() {
    let cases = [
        ("string id = 1;\n  // Its colour.\n  Color", "string id = 1;\n  string more = 20;\n  // Its colour.\n  Color"),
        ("BLUE = 2;", "BLUE = 2;\n GREEN = 3;"),
        ("{get: \"/things/{id}\"}", "{get: \"/things/{id}\" additional_bindings {get: \"/t/{id}\"}}"),
        ("{post: \"/things/{id}/drop\" body: \"*\"}", "{post: \"/things/{id}/lose\" body: \"*\"}"),
        ("{not_built: true, max_len: 9}", "{max_len: 4}"),
        ("{min: 1, max: 10}", "{min: 0}"),
        ("  // Its id.\n", "  // Another comment.\n"),
        (
            "message DropThingRequest {\n  // Which.\n  string id = 1 [(google.api.field_behavior) = REQUIRED]",
            "message DropThingRequest {\n  // Which.\n  string id = 1 [(cloud.options.v1.rules) = {not_built: true}]",
        ),
    ];
    for (from, to) in cases {
        assert_eq!(breaking(&pool(GOOD), &changed(from, to), &["t.v1"]), Vec::<String>::new(), "{to}");
    }
    let required = "message DropThingRequest {\n  // Which.\n  string id = 1 [(google.api.field_behavior) = REQUIRED]";
    let optional = "message DropThingRequest {\n  // Which.\n  string id = 1";
    let problems = breaking(&changed(required, optional), &pool(GOOD), &["t.v1"]);
    assert_eq!(problems, Vec::<String>::new(), "nobody could send it without");
}

#[test]
fn a_release_keeps_options_and_loses_comments() {
    let bytes = without_comments(&compile(GOOD)).unwrap();
    let kept = DescriptorPool::decode(bytes.as_slice()).unwrap();
    assert!(bytes.len() < compile(GOOD).len());
    assert!(kept.files().all(|file| file.file_descriptor_proto().source_code_info.is_none()));
    let problems = breaking(&kept, &changed("{get: \"/things/{id}\"}", "{get: \"/thing/{id}\"}"), &["t.v1"]);
    assert_eq!(problems, ["t.v1.ThingService.GetThing lost the route GET /things/{id}"]);
    let problems = breaking(&kept, &changed("{success_code: 201}", "{success_code: 200}"), &["t.v1"]);
    assert_eq!(problems.len(), 1, "our own options are there too: {problems:?}");
}
