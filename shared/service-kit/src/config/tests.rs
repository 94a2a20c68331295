use std::io::Write as _;

use super::*;

#[derive(Debug, Parser)]
struct Flags {
    #[command(flatten)]
    daemon: DaemonArgs,
    /// Set in every environment.
    #[arg(long, env = "PATH")]
    from_env: String,
    #[arg(long)]
    required: String,
    #[arg(long, default_value_t = 1)]
    number: u32,
    #[arg(long)]
    verbose: bool,
    #[arg(long, value_delimiter = ',')]
    pools: Vec<String>,
    #[arg(long)]
    tls_cert: Option<PathBuf>,
}

fn load(toml: &str, flags: &[&str]) -> Result<Flags, ConfigError> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(toml.as_bytes()).unwrap();
    let path = file.path().to_str().unwrap();
    let args = ["daemon", "--config", path].into_iter().chain(flags.iter().copied()).map(OsString::from);
    load_from(args)
}

#[test]
fn the_file_fills_what_flags_leave_open() {
    let toml = r#"
        listen = "unix:/run/a.sock"
        log_format = "json"
        required = "file"
        number = 2
        verbose = true
        pools = ["a", "b"]
        [tls]
        cert = "/c.pem"
    "#;
    let flags = load(toml, &[]).unwrap();
    assert_eq!(flags.daemon.listen, Some(Address::Unix("/run/a.sock".into())));
    assert_eq!(flags.daemon.telemetry.log_format, crate::telemetry::LogFormat::Json);
    assert_eq!((flags.required.as_str(), flags.number, flags.verbose), ("file", 2, true));
    assert_eq!(flags.pools, ["a", "b"]);
    assert_eq!(flags.tls_cert, Some("/c.pem".into()));
    let flags = load(toml, &["--required", "flag", "--number=3", "--pools", "c"]).unwrap();
    assert_eq!((flags.required.as_str(), flags.number), ("flag", 3));
    assert_eq!(flags.pools, ["c"]);
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let toml = "from_env = \"file\"\nrequired = \"x\"";
    assert_eq!(load(toml, &[]).unwrap().from_env, env::var("PATH").unwrap());
    assert_eq!(load(toml, &["--from-env", "flag"]).unwrap().from_env, "flag");
}

#[test]
fn defaults_are_last() {
    let flags = load("", &["--required", "x"]).unwrap();
    assert_eq!((flags.number, flags.verbose, flags.daemon.listen), (1, false, None));
    assert_eq!(flags.daemon.telemetry.log_level, "info");
}

#[test]
fn what_the_file_should_not_have_is_named() {
    for (toml, named) in [
        ("lisen = \"x\"", "unknown key `lisen`; known are listen, log-format"),
        ("[tls]\ncrt = \"x\"", "unknown key `tls-crt`"),
        ("config = \"x\"", "unknown key `config`"),
        ("help = true", "unknown key `help`"),
        ("number = [[1]]", "value of `number`"),
        ("required = 1979-05-27", "value of `required`"),
        ("a = ", "is not TOML"),
    ] {
        let error = load(toml, &[]).unwrap_err().to_string();
        assert!(error.contains(named), "{toml}: {error}");
    }
}

#[test]
fn a_bad_value_in_the_file_is_refused_as_on_the_command_line() {
    let error = load("required = \"x\"\nlisten = \"nowhere\"", &[]).unwrap_err();
    assert!(matches!(error, ConfigError::Flags(_)));
    let text = error.to_string();
    assert!(text.contains("'nowhere' for '--listen <ADDRESS>'") && text.contains("not an address"), "{text}");
}

#[test]
fn a_missing_file_is_named() {
    let error = load_from::<Flags>(["d", "--config=/no/such.toml"].map(OsString::from)).unwrap_err();
    assert_eq!(error.to_string(), "cannot read the configuration /no/such.toml");
}
