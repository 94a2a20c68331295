//! `.run/env`: what `make up` writes for the commands of its checkout.

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// The variables that a `.run/env` sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunEnv {
    /// The file.
    pub path: PathBuf,
    /// `CLOUD_ENDPOINT`.
    pub endpoint: Option<String>,
    /// `CLOUD_API_KEY_FILE`, made absolute.
    pub api_key_file: Option<PathBuf>,
    /// `CLOUD_PROJECT`.
    pub project: Option<String>,
}

/// The nearest `.run/env` in `start` or above it. One that another user wrote (or could) is passed over: it says where the key is sent.
pub fn find(start: &Path) -> Option<RunEnv> {
    let path = start.ancestors().map(|dir| dir.join(".run/env")).find(|path| path.is_file())?;
    if !trusted(&path) {
        eprintln!("warning: {} is passed over: other users may write it, or wrote it", path.display());
        return None;
    }
    let text = fs::read_to_string(&path).ok()?;
    let mut values = parse(&text);
    let root = path.parent().and_then(Path::parent).unwrap_or(start);
    Some(RunEnv {
        endpoint: values.remove("CLOUD_ENDPOINT"),
        api_key_file: values.remove("CLOUD_API_KEY_FILE").map(|file| root.join(file)),
        project: values.remove("CLOUD_PROJECT"),
        path,
    })
}

/// Whether only root, the caller or the caller's own group could have written it.
fn trusted(path: &Path) -> bool {
    let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    fs::metadata(path).is_ok_and(|meta| {
        let writable = |bit| meta.mode() & bit != 0;
        let owned = meta.uid() == user || meta.uid() == 0;
        owned && !writable(0o002) && (!writable(0o020) || meta.gid() == group)
    })
}

/// `NAME=value` lines as a shell's `.` reads them, as far as `make up` writes them: `export`, comments and quotes, no expansion.
fn parse(text: &str) -> HashMap<String, String> {
    let line = |line: &str| {
        let line = line.trim();
        let line = line.strip_prefix("export ").unwrap_or(line);
        let (name, value) = line.split_once('=')?;
        let value = value.trim();
        let inner = |quote: char| value.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
        let value = inner('"').or_else(|| inner('\'')).unwrap_or(value);
        (!name.starts_with('#') && !value.is_empty()).then(|| (name.trim().to_owned(), value.to_owned()))
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn reads_what_a_shell_would() {
        let values = parse(
            "# made by make up\nexport CLOUD_ENDPOINT=http://127.0.0.1:8080\nCLOUD_API_KEY_FILE=\"/a b/key\"\nX='y'\nEMPTY=\n",
        );
        assert_eq!(values["CLOUD_ENDPOINT"], "http://127.0.0.1:8080");
        assert_eq!(values["CLOUD_API_KEY_FILE"], "/a b/key");
        assert_eq!(values["X"], "y");
        assert_eq!(values.len(), 3);
    }

    #[test]
    fn is_found_above_and_paths_start_at_the_checkout() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join(".run")).unwrap();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        let file = dir.path().join(".run/env");
        fs::write(&file, "CLOUD_API_KEY_FILE=.run/admin.key\n").unwrap();
        let found = find(&dir.path().join("a/b")).unwrap();
        assert_eq!(found.path, file);
        assert_eq!(found.api_key_file, Some(dir.path().join(".run/admin.key")));
        assert_eq!(found.endpoint, None);
    }

    #[test]
    fn one_that_others_can_write_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join(".run")).unwrap();
        let file = dir.path().join(".run/env");
        fs::write(&file, "CLOUD_ENDPOINT=http://elsewhere.example\n").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
        assert_eq!(find(dir.path()), None);
    }
}
