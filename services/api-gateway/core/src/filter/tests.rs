use proptest::prelude::*;
use serde_json::json;

use super::*;

const FIELDS: &[Field] = &[
    ID,
    NAME,
    LABELS,
    Field::new("status", FieldKind::Word(&[("RUNNING", "run"), ("STOPPED", "stop")]), &["status"]),
    Field::new("size", FieldKind::Whole, &["size"]),
    Field::new("root", FieldKind::Flag, &["root"]),
];

fn parse(text: &str) -> Result<Filter, String> {
    Filter::parse(FIELDS, text).map_err(|e| e.to_string())
}

#[test]
fn what_can_be_said() {
    let row = json!({
        "meta": {"id": "1", "name": "web-01", "labels": {"tier": "web", "app.io/part": "a \"b\"", "or": "OR"}},
        "status": "run", "size": 10, "root": true,
    });
    for meant in [
        "",
        "  ",
        "name=web-01",
        "name = web-01",
        "name~web-*",
        "name~*01",
        "name~w*b*1",
        "name~*",
        "name!=web-02",
        "status=RUNNING",
        "status=running size=10 root=true",
        "status!=STOPPED AND size!=11",
        "labels.tier=web",
        r#"labels."tier"="web""#,
        r#"labels.app.io/part="a \"b\"""#,
        "labels.none!=x",
        r#"labels.none="""#,
        r#"labels.or="OR" AND size=0010"#,
    ] {
        assert!(parse(meant).unwrap().matches_json(&row), "{meant}");
    }
    for other in [
        "name=web",
        "name=WEB-01",
        "name=web-*",
        "name~web",
        "name~*2",
        "name~web-01*1",
        "status=STOPPED",
        "status!=RUNNING",
        "size=11",
        "root=false",
        "labels.tier=db",
        "labels.none=x",
        r#"labels.tier="""#,
        "name=web-01 size=11",
    ] {
        assert!(!parse(other).unwrap().matches_json(&row), "{other}");
    }
}

#[test]
fn what_is_wrong_is_said() {
    for (text, part) in [
        ("colour=red", "no field `colour` to filter by: known are id, name, labels.<key>, status, size, root"),
        ("Name=x", "no field `Name`"),
        ("name", "`name`: one of = != ~ must follow, before the end"),
        ("name=", "`name`: a value is missing before the end"),
        ("name= AND size=1", "`name`: a value is missing before `AND size=1`"),
        ("=x", "a field is missing before `=x`"),
        ("name=a=b", "a space must follow each term, before `=b`"),
        ("name=\"a", "no closing quote"),
        ("name=\"a\\n\"", "a backslash only before"),
        ("name=\"a\"b", "a space must follow"),
        ("labels=x", "`labels` needs a key"),
        ("labels.=x", "`labels`: a key is missing"),
        ("name.first=x", "`name` has no fields of its own"),
        ("status=GONE", "`status`: there is no `GONE`: known are RUNNING, STOPPED"),
        ("status~R*", "`status` is not text"),
        ("size=big", "`size`: `big` is not a whole number"),
        ("size=-1", "`size`: `-1` is not a whole number"),
        ("root=yes", "`root`: `yes` is neither true nor false"),
        ("name=a OR name=b", "`OR name=b` is no term"),
        ("name=a AND", "joined by spaces or AND"),
        ("(name=a)", "a field is missing before `(name=a)`"),
        (&"name=a ".repeat(33), "more than 32 terms"),
    ] {
        let error = parse(text).unwrap_err();
        assert!(error.starts_with("`filter`: ") && error.contains(part), "{text}: {error}");
    }
}

#[test]
fn orders() {
    for (text, printed) in [
        ("", "created_at"),
        ("created_at asc", "created_at"),
        ("created_at desc", "created_at desc"),
        (" name ", "name"),
        ("name  desc", "name desc"),
    ] {
        assert_eq!(Order::parse(text).unwrap().to_string(), printed);
    }
    for text in ["status", "name up", "name desc id", "name, created_at", "desc"] {
        let error = Order::parse(text).unwrap_err().to_string();
        assert!(error.starts_with("`order_by`: "), "{error}");
    }
}

fn term() -> impl Strategy<Value = Term> {
    let op = prop_oneof![Just(Op::Is), Just(Op::IsNot), Just(Op::Like)];
    (0..FIELDS.len(), "\\PC{0,12}", op, any::<String>(), any::<u64>()).prop_map(|(i, key, op, text, number)| {
        let field = &FIELDS[i];
        let (op, value) = match field.kind {
            FieldKind::Text | FieldKind::Labels => (op, text),
            _ if op == Op::Like => (Op::Is, text),
            _ => (op, text),
        };
        let value = match field.kind {
            FieldKind::Whole => number.to_string(),
            FieldKind::Flag => (number % 2 == 0).to_string(),
            FieldKind::Word(words) => words[usize::from(number % 2 == 0)].1.to_owned(),
            FieldKind::Text | FieldKind::Labels => value,
        };
        Term { field, key: (field.kind == FieldKind::Labels).then_some(key), op, value }
    })
}

proptest! {
    #[test]
    fn what_is_printed_is_parsed_again(terms in prop::collection::vec(term(), 0..6)) {
        let filter = Filter::of(terms);
        prop_assert_eq!(parse(&filter.to_string()), Ok(filter));
    }

    #[test]
    fn no_text_is_too_much(text in any::<String>()) {
        let _ = parse(&text);
    }

    #[test]
    fn no_text_made_of_parts_is_too_much(text in r#"((name|labels|size|status|root|AND|OR|\.|=|!=|~|"|\\| |\*|é|x){1}){0,12}"#) {
        if let Ok(filter) = parse(&text) {
            prop_assert_eq!(parse(&filter.to_string()), Ok(filter));
        }
    }

    #[test]
    fn a_glob_is_what_a_regular_expression_says(pattern in "[ab*]{0,8}", text in "[ab]{0,10}") {
        let words: Vec<_> = pattern.split('*').collect();
        let expression = format!("^{}$", words.join(".*"));
        let field = Filter::of(vec![Term { field: &FIELDS[1], key: None, op: Op::Like, value: pattern }]);
        let says = regex::Regex::new(&expression).unwrap().is_match(&text);
        prop_assert_eq!(field.matches_by(|_| text.clone()), says);
    }
}
