//! `cloud login`: remembers a gateway, the authority that it is known by, and the key for it.

use std::{
    fs,
    io::{self, BufRead as _, IsTerminal as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::Path,
};

use clap::Args;
use cloud_domain::join::{self, Fingerprint};
use toml::{Table, Value};

use crate::{
    args::Connection,
    connect::{Places, Shown, is_loopback, key, look_at},
    error::Error,
};

/// `cloud login`.
#[derive(Debug, Args)]
#[command(
    after_help = "The key is that of --api-key-file, CLOUD_API_KEY_FILE or CLOUD_API_KEY, or else the first line of stdin. \
The fingerprint of a cloud's own authority stands in the gateway's log and in every join token."
)]
pub struct Login {
    /// The gateway's URL, such as https://cloud.example:8080
    #[arg(value_name = "URL")]
    url: String,
    /// The SHA-256 fingerprint, in hex, of the certificate authority that the gateway's certificate comes from; without it, the system's
    /// authorities are asked
    #[arg(long, value_name = "HEX", value_parser = fingerprint)]
    fingerprint: Option<Fingerprint>,
    /// Send the API key unencrypted, over plain http to another machine: whoever is on the way reads it
    #[arg(long)]
    allow_plain: bool,
}

/// Does it.
pub async fn run(connection: Connection, args: Login) -> Result<(), Error> {
    let places = Places::of_this_process();
    let dir =
        places.config.clone().ok_or_else(|| Error::usage("there is no home directory to remember it in".to_owned()))?;
    let uri: http::Uri = args.url.parse().map_err(|_| Error::usage(format!("`{}` is not a URL", args.url)))?;
    let authority = match (uri.scheme_str(), args.fingerprint) {
        (Some("https"), pinned) => authority(&uri, pinned).await?,
        (Some("http"), None) if is_loopback(&args.url) || args.allow_plain => None,
        (Some("http"), Some(_)) => {
            return Err(Error::usage("a fingerprint is for https: over http there is no certificate".to_owned()));
        }
        (Some("http"), None) => {
            let message = format!(
                "`{}` is plain http to another machine: use https, or --allow-plain to send the API key unencrypted",
                args.url
            );
            return Err(Error::usage(message));
        }
        _ => return Err(Error::usage(format!("`{}` is neither http nor https", args.url))),
    };
    let secret = secret(&connection, &places)?;
    remember(&dir, &args.url, &secret, authority.as_deref(), connection.project.as_deref())?;
    eprintln!("remembered {} in {}", args.url, dir.display());
    Ok(())
}

/// The authority to trust from now on, in PEM; none: the system's.
async fn authority(uri: &http::Uri, pinned: Option<Fingerprint>) -> Result<Option<String>, Error> {
    let shown = look_at(uri).await?;
    let Some(pinned) = pinned else {
        if shown.by_system {
            return Ok(None);
        }
        let seen =
            shown.authorities.iter().map(|(fingerprint, _)| join::hex(fingerprint)).collect::<Vec<_>>().join(", ");
        let message = format!(
            "the system does not know the authority of the gateway's certificate: compare its fingerprint with the one in the gateway's log, and \
             give it with --fingerprint (the gateway shows {seen})"
        );
        return Err(Error::usage(message));
    };
    let Shown { authorities, .. } = shown;
    let found = authorities.into_iter().find(|(fingerprint, _)| *fingerprint == pinned);
    match found {
        Some((_, pem)) => Ok(Some(pem)),
        None => Err(Error::usage(format!(
            "the gateway's certificate does not come from the authority with the fingerprint {}: nothing was sent to it",
            join::hex(&pinned)
        ))),
    }
}

fn secret(connection: &Connection, places: &Places) -> Result<String, Error> {
    if let Some(path) = connection.api_key_file.as_ref().filter(|path| !path.as_os_str().is_empty()) {
        return Ok(key::read(path)?.secret().to_owned());
    }
    if let Some(text) = places.api_key.as_ref().filter(|text| !text.is_empty()) {
        return Ok(key::parse(text, "CLOUD_API_KEY")?.secret().to_owned());
    }
    if io::stdin().is_terminal() {
        eprintln!("paste the API key, and press Enter:");
    }
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).map_err(|source| Error::Read { path: "stdin".into(), source })?;
    Ok(key::parse(&line, "stdin")?.secret().to_owned())
}

fn remember(dir: &Path, url: &str, secret: &str, authority: Option<&str>, project: Option<&str>) -> Result<(), Error> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(|source| Error::Write { path: dir.to_owned(), source })?;
    write(&dir.join("api.key"), &format!("{secret}\n"), 0o600)?;
    let mut table = Table::new();
    let mut set = |key: &str, value: &str| table.insert(key.to_owned(), Value::String(value.to_owned()));
    set("endpoint", url.trim_end_matches('/'));
    set("api_key_file", "api.key");
    if let Some(project) = project {
        set("project", project);
    }
    if let Some(pem) = authority {
        write(&dir.join("ca.pem"), pem, 0o644)?;
        set("ca_file", "ca.pem");
    }
    write(&dir.join("config.toml"), &table.to_string(), 0o644)
}

/// Writes a file whole or not at all.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), Error> {
    let temporary = path.with_extension("new~");
    let written = || {
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    written().map_err(|source| Error::Write { path: path.to_owned(), source })
}

fn fingerprint(text: &str) -> Result<Fingerprint, String> {
    join::fingerprint(text).ok_or_else(|| "must have 64 digits of hex".to_owned())
}
