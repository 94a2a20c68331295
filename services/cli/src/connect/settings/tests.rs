use std::fs;

use tempfile::TempDir;

use super::*;

/// A home with nothing in it, and a machine without a cloud.
fn surroundings() -> (TempDir, Places) {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| {
        let path = dir.path().join(name);
        fs::create_dir_all(&path).unwrap();
        path
    };
    let places = Places {
        api_key: None,
        config: Some(at("config")),
        working: Some(at("checkout/sub")),
        machine_key: at("machine").join("admin.key"),
    };
    (dir, places)
}

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn run_env(dir: &TempDir) {
    write(
        &dir.path().join("checkout/.run/env"),
        "CLOUD_ENDPOINT=http://127.0.0.1:9999\nCLOUD_API_KEY_FILE=.run/admin.key\n",
    );
    write(&dir.path().join("checkout/.run/admin.key"), "of-the-checkout\n");
}

#[test]
fn the_machines_own_key_is_the_last_resort() {
    let (_dir, places) = surroundings();
    write(&places.machine_key, "of-the-machine\n");
    let found = Settings::find(Connection::default(), &places).unwrap();
    assert_eq!(found.endpoint, DEFAULT_ENDPOINT);
    assert_eq!(found.key.secret(), "of-the-machine");
}

#[test]
fn the_machines_key_goes_to_no_other_machine() {
    let (_dir, places) = surroundings();
    write(&places.machine_key, "of-the-machine\n");
    let elsewhere = Connection { endpoint: Some("https://cloud.example".into()), ..Connection::default() };
    assert!(matches!(Settings::find(elsewhere, &places), Err(Error::NoKey { .. })));
}

#[test]
fn a_checkout_wins_over_configuration() {
    let (dir, places) = surroundings();
    run_env(&dir);
    write(&places.config.clone().unwrap().join("config.toml"), "endpoint = \"https://cloud.example\"\n");
    write(&places.config.clone().unwrap().join("api.key"), "of-the-user\n");
    let found = Settings::find(Connection::default(), &places).unwrap();
    assert_eq!((found.endpoint.as_str(), found.key.secret()), ("http://127.0.0.1:9999", "of-the-checkout"));
}

#[test]
fn the_checkouts_key_goes_to_its_own_endpoint_only() {
    let (dir, places) = surroundings();
    run_env(&dir);
    write(&places.config.clone().unwrap().join("api.key"), "of-the-user\n");
    let elsewhere = Connection { endpoint: Some("https://cloud.example".into()), ..Connection::default() };
    assert_eq!(Settings::find(elsewhere, &places).unwrap().key.secret(), "of-the-user");
}

#[test]
fn what_is_given_wins() {
    let (dir, mut places) = surroundings();
    run_env(&dir);
    places.api_key = Some("of-the-environment".into());
    let file = dir.path().join("given.key");
    write(&file, "given\n");
    let given = Connection {
        endpoint: Some("http://127.0.0.1:1".into()),
        api_key_file: Some(file),
        project: Some("blue".into()),
        ..Connection::default()
    };
    let found = Settings::find(given, &places).unwrap();
    assert_eq!((found.endpoint.as_str(), found.key.secret()), ("http://127.0.0.1:1", "given"));
    assert_eq!(found.project.as_deref(), Some("blue"));
    let found = Settings::find(Connection::default(), &places).unwrap();
    assert_eq!(found.key.secret(), "of-the-environment");
}

#[test]
fn configuration_names_files_beside_itself() {
    let (_dir, places) = surroundings();
    let config = places.config.clone().unwrap();
    write(
        &config.join("config.toml"),
        "endpoint = \"https://cloud.example\"\napi_key_file = \"prod.key\"\nproject = \"p\"\nca_file = \"ca.pem\"\n",
    );
    write(&config.join("prod.key"), "of-production");
    let found = Settings::find(Connection::default(), &places).unwrap();
    assert_eq!(found.key.secret(), "of-production");
    assert_eq!(found.ca_file, Some(config.join("ca.pem")));
}

#[test]
fn a_misspelt_setting_is_refused() {
    let (_dir, places) = surroundings();
    write(&places.config.clone().unwrap().join("config.toml"), "endpiont = \"https://cloud.example\"\n");
    let error = Settings::find(Connection::default(), &places).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    assert!(error.to_string().contains("endpiont"), "{error}");
}

#[test]
fn without_a_key_every_place_is_named() {
    let (_dir, places) = surroundings();
    let error = Settings::find(Connection::default(), &places).unwrap_err();
    assert_eq!(error.exit_code(), 5);
    let Error::NoKey { searched } = error else { panic!("{error}") };
    assert_eq!(searched.len(), 3);
    assert!(searched[2].contains("admin.key"));
}

#[test]
fn loopback_is_told_from_the_rest() {
    for yes in ["http://127.0.0.1:8080", "http://localhost", "https://[::1]:8080", "http://127.9.9.9"] {
        assert!(is_loopback(yes), "{yes}");
    }
    for no in ["http://10.0.0.1", "https://localhost.example", "not a url", "http://127.0.0.1.example"] {
        assert!(!is_loopback(no), "{no}");
    }
}
