use std::time::Duration;

use clap::{CommandFactory, Parser, error::ErrorKind};

use super::*;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(std::iter::once("cloud").chain(line.split_whitespace()))
}

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn every_verb_parses() {
    for line in [
        "instance launch --name db-01 --image tiny",
        "instance launch db-01 --image tiny --type small --vpc v --subnet s --volume a --volume b --ssh-key @/k --ssh-key x \
         --user-data @/u --label a=b --label c=d=e --root-disk 20 --restart on-failure --wait --timeout 90s -o json",
        "instance ls --limit 5 --show-deleted -o yaml",
        "instance show a b -o json",
        "instance start a b --wait",
        "instance stop a b -w",
        "instance reboot a",
        "instance rm a b --wait --timeout 10m",
        "instance log a -f --bytes 100",
        "instance console a --drain 2s",
        "instance url a -o json",
        "volume create data --size 10 --wait",
        "volume attach data web-01 --wait --timeout 10s -o json",
        "volume detach data -w -o yaml",
        "volume ls",
        "volume show a",
        "volume rm a --wait",
        "image import --name tiny --file /x --public --wait",
        "image import tiny --url https://a.example/b --format qcow2 --sha256 00",
        "image import tiny --import-file b.raw --format raw",
        "image ls",
        "image show a",
        "image rm a b",
        "vpc create blue --cidr 10.0.0.0/16 --label a=",
        "vpc ls",
        "vpc show a",
        "vpc rm a b",
        "subnet create s --vpc blue --cidr 10.0.1.0/24 --dns 1.1.1.1",
        "subnet ls",
        "subnet show s --vpc blue",
        "subnet rm s t",
        "port ls",
        "port show a",
        "host ls -o json",
        "host show a",
        "host orphan ls h1 --limit 3 -o json",
        "host orphan adopt h1 00000000-0000-4000-8000-000000000001 --into blue --name data",
        "host orphan rm h1 a b -o yaml",
        "event ls --kind instance --resource x --limit 3",
        "admin backup /b --force -o json",
        "admin restore /b --allow-other-cloud --timeout 90s",
        "type ls",
        "type show small",
        "project ls",
        "project show default",
        "project create blue --label a=b",
        "project rm blue green",
        "api-key create ci --role member --expires 90d -o json",
        "api-key ls",
        "api-key show ci",
        "api-key revoke ci cd",
        "api-key rotate ci --overlap 12h",
        "quota show blue -o json",
        "quota set blue instances=20 vcpus=none",
        "completion bash",
        "completion zsh",
        "completion fish",
        "version -o json",
        "--endpoint http://127.0.0.1:1 --project p instances list",
        "instance ls --endpoint http://127.0.0.1:1 --api-key-file /k --ca-file /c",
    ] {
        if let Err(error) = parse(line) {
            panic!("cloud {line}\n{error}");
        }
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    for (line, kind) in [
        ("", ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand),
        ("instance launch --image tiny", ErrorKind::MissingRequiredArgument),
        ("instance launch a --name b --image tiny", ErrorKind::ArgumentConflict),
        ("instance launch a", ErrorKind::MissingRequiredArgument),
        ("instance launch a --image tiny --label novalue", ErrorKind::ValueValidation),
        ("instance launch a --image tiny --ssh-key @", ErrorKind::ValueValidation),
        ("instance show", ErrorKind::MissingRequiredArgument),
        ("instance stop a --timeout 10s", ErrorKind::MissingRequiredArgument),
        ("instance rm a --wait --timeout soon", ErrorKind::ValueValidation),
        ("instance ls -o xml", ErrorKind::InvalidValue),
        ("image import a", ErrorKind::MissingRequiredArgument),
        ("image import a --url u --file f", ErrorKind::ArgumentConflict),
        ("volume create a", ErrorKind::MissingRequiredArgument),
        ("subnet create a", ErrorKind::MissingRequiredArgument),
        ("api-key create ci", ErrorKind::MissingRequiredArgument),
        ("api-key create ci --role king", ErrorKind::InvalidValue),
        ("api-key create ci --role viewer --expires 1y", ErrorKind::ValueValidation),
        ("quota set blue", ErrorKind::MissingRequiredArgument),
        ("quota set blue instances", ErrorKind::ValueValidation),
        ("snapshot create data", ErrorKind::MissingRequiredArgument),
    ] {
        match parse(line) {
            Ok(cli) => panic!("cloud {line} parsed as {cli:?}"),
            Err(error) => assert_eq!(error.kind(), kind, "cloud {line}\n{error}"),
        }
    }
}

#[test]
fn connection_options_stand_anywhere() {
    let before = parse("--endpoint http://a --project p host ls").unwrap().connection;
    let after = parse("host ls --endpoint http://a --project p").unwrap().connection;
    assert_eq!(before.endpoint.as_deref(), Some("http://a"));
    assert_eq!(before.endpoint, after.endpoint);
    assert_eq!(before.project, after.project);
}

#[test]
fn names_are_taken_once() {
    let cli = parse("port show a b a").unwrap();
    let Command::Port(LsShow::Show { names, .. }) = cli.command else { panic!("{cli:?}") };
    assert_eq!(names.unique(), ["a", "b"]);
}

#[test]
fn durations() {
    for (text, millis) in
        [("90", 90_000), ("90s", 90_000), ("1500ms", 1_500), ("5m", 300_000), ("2h", 7_200_000), ("0", 0)]
    {
        assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
    }
    for text in ["", "s", "-1s", "1.5s", "5 m", "5d", "99999999999999999999", "9000h"] {
        assert!(duration(text).is_err(), "{text}");
    }
}

#[test]
fn help_of_the_top_level() {
    let mut command = Cli::command().mut_args(|arg| arg.hide_env(true));
    insta::assert_snapshot!(command.render_help().to_string());
}
