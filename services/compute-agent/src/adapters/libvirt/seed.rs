//! The cloud-init NoCloud seed: a FAT volume labelled `CIDATA` with `meta-data` and `user-data`.
//!
//! Source of the format: cloud-init's NoCloud data source documentation.

use std::{
    fmt::Write as _,
    io::{self, Cursor, Write as _},
};

use cloud_domain::InstanceId;
use fatfs::{FileSystem, FormatVolumeOptions, FsOptions};

use crate::core::Seed;

/// FAT12 with 512-byte clusters; the smallest image, enough for usual data.
const MIN_BYTES: usize = 512 * 1024;
/// Room for the file system's own tables and for partly filled clusters.
const SLACK: usize = 256 * 1024;

/// The image, ready to be written to a file.
///
/// # Errors
/// The data does not fit a FAT volume (never, at the sizes that the contract allows).
pub fn image(id: InstanceId, seed: &Seed) -> io::Result<Vec<u8>> {
    let meta_data = meta_data(id, seed);
    let contents = meta_data.len() + seed.user_data.len();
    let size = (contents + SLACK).max(MIN_BYTES).next_multiple_of(64 * 1024);
    let mut disk = Cursor::new(vec![0; size]);
    fatfs::format_volume(&mut disk, FormatVolumeOptions::new().volume_label(*b"CIDATA     "))?;
    let volume = FileSystem::new(&mut disk, FsOptions::new())?;
    for (name, text) in [("meta-data", meta_data.as_str()), ("user-data", seed.user_data.as_str())] {
        let mut file = volume.root_dir().create_file(name)?;
        file.write_all(text.as_bytes())?;
        file.flush()?;
    }
    volume.unmount()?;
    Ok(disk.into_inner())
}

/// YAML with every text quoted (a host name may be `no`, which plain YAML reads as false).
fn meta_data(id: InstanceId, seed: &Seed) -> String {
    let mut text = format!("instance-id: \"{id}\"\nlocal-hostname: {}\n", quoted(seed.hostname.as_str()));
    if !seed.ssh_keys.is_empty() {
        text.push_str("public-keys:\n");
        for key in &seed.ssh_keys {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "  - {}", quoted(key.trim()));
        }
    }
    text
}

/// A JSON string, which is a YAML double-quoted one (YAML 1.2, section 1.3).
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn seed(user_data: &str) -> Seed {
        Seed {
            hostname: "no".parse().unwrap(),
            ssh_keys: vec!["ssh-ed25519 AAAA a \"b\"\n".into(), "ssh-rsa BBBB".into()],
            user_data: user_data.into(),
        }
    }

    fn read(image: &[u8], name: &str) -> String {
        let volume = FileSystem::new(Cursor::new(image.to_vec()), FsOptions::new()).unwrap();
        assert_eq!(volume.volume_label(), "CIDATA");
        assert_eq!(volume.read_volume_label_from_root_dir().unwrap().as_deref(), Some("CIDATA"));
        let mut text = String::new();
        volume.root_dir().open_file(name).unwrap().read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn the_image_holds_what_the_guest_reads() {
        let id = "550e8400-e29b-41d4-a716-446655440000".parse().unwrap();
        let image = image(id, &seed("#!/bin/sh\necho hi\n")).unwrap();
        insta::assert_snapshot!(read(&image, "meta-data"), @r#"
        instance-id: "550e8400-e29b-41d4-a716-446655440000"
        local-hostname: "no"
        public-keys:
          - "ssh-ed25519 AAAA a \"b\""
          - "ssh-rsa BBBB"
        "#);
        assert_eq!(read(&image, "user-data"), "#!/bin/sh\necho hi\n");
    }

    #[test]
    fn large_user_data_fits() {
        let data = "x".repeat(3 << 20);
        assert_eq!(read(&image(InstanceId::random(), &seed(&data)).unwrap(), "user-data"), data);
    }
}
