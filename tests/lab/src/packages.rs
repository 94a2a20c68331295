//! Our Debian packages, of the programs that are beside this one.

use std::{
    fs,
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use anyhow::Context as _;
use sha2::{Digest as _, Sha256};

use crate::{
    command::run,
    site::{cache, root},
};

const PROGRAMS: [&str; 6] = [
    "cloud-compute-agent",
    "cloud-storage-agent",
    "cloud-network-agent",
    "cloud-agent-join",
    "cloud-api-gateway",
    "cloud",
];

/// Makes them, uncompressed; their files.
pub async fn make(binaries: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let out = cache().join("packages");
    let (bin_dir, out) = (binaries.display().to_string(), out.display().to_string());
    let script = root().join("deploy/packages.sh");
    let said = run(script, &["--fast", "--bin-dir", &bin_dir, "--out", &out]).await?;
    Ok(said.lines().map(PathBuf::from).collect())
}

/// What the programs and the packages' files are, in a few bytes; also where the packages were not made yet.
pub fn fingerprint(binaries: &Path) -> anyhow::Result<Vec<u8>> {
    let mut hash = Sha256::new();
    for name in PROGRAMS {
        let path = binaries.join(name);
        let about = fs::metadata(&path)
            .with_context(|| format!("{} is not built: run `cargo build --workspace --bins`", path.display()))?;
        let written = about.modified()?.duration_since(UNIX_EPOCH)?;
        hash.update(format!("{} {} {}\n", path.display(), about.len(), written.as_nanos()));
    }
    for part in ["deploy/packages.sh", "deploy/packages", "deploy/systemd"] {
        add(&mut hash, &root().join(part))?;
    }
    Ok(hash.finalize().to_vec())
}

/// The contents of a file, or of all files below a directory.
fn add(hash: &mut Sha256, path: &Path) -> anyhow::Result<()> {
    if path.is_dir() {
        let mut inside = fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
        inside.sort();
        inside.iter().try_for_each(|path| add(hash, path))
    } else {
        hash.update(path.display().to_string());
        hash.update(fs::read(path)?);
        Ok(())
    }
}

/// The package of the gateway, which no host of the lab has by itself; made with the others.
///
/// # Errors
/// It was not made.
pub fn gateway_package() -> anyhow::Result<PathBuf> {
    let packages = cache().join("packages");
    let mut found = fs::read_dir(&packages)?.filter_map(|entry| Some(entry.ok()?.path()));
    found
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("thecloud-gateway_")))
        .with_context(|| format!("no package of the gateway is in {}", packages.display()))
}
