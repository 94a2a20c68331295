//! Writes the descriptors of this version to `proto/released/`, for later versions to be compared with:
//! `cargo run -p cloud-contracts --example release-descriptors`. A release that is there is not written again, unless
//! `--overwrite` says that it was not published.
use std::{env, error::Error, fs, path::Path};

fn main() -> Result<(), Box<dyn Error>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto/released");
    let path = dir.join(concat!(env!("CARGO_PKG_VERSION"), ".binpb"));
    if path.exists() && !env::args().any(|argument| argument == "--overwrite") {
        return Err(format!(
            "{} is there: a release does not change (--overwrite if it was not published)",
            path.display()
        )
        .into());
    }
    fs::create_dir_all(&dir)?;
    fs::write(&path, cloud_contract_lint::without_comments(cloud_contracts::DESCRIPTORS)?)?;
    println!("{}", path.canonicalize()?.display());
    Ok(())
}
