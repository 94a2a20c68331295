//! The bare work of a launch, by the commands an administrator would type: clone the disk, make the switch port, define and start the domain.
//!
//! The domain is the very one that the cloud made for a model instance, with other ids, so both sides start the same machine.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use cloud_tests::real::{run, virsh};
use uuid::Uuid;

/// What the work is modelled on.
#[derive(Debug)]
pub struct Model {
    xml: String,
    id: String,
    disk: PathBuf,
    backing: String,
    size: String,
    tap: String,
    mac: String,
    bridge: String,
}

impl Model {
    /// Takes an instance that runs as the model.
    pub fn of(id: &str, tap: &str, mac: &str) -> anyhow::Result<Self> {
        let xml = virsh(&["dumpxml", "--inactive", id])?;
        let disk = PathBuf::from(between(&xml, "<source file='", "'")?);
        let info = run("qemu-img", &["info", "--force-share", "--output=json", &disk.display().to_string()])?;
        let info: serde_json::Value = serde_json::from_str(&info)?;
        let backing = info["full-backing-filename"].as_str().context("the disk has a backing file")?.to_owned();
        let size = info["virtual-size"].to_string();
        let bridge = run("ovs-vsctl", &["--timeout=10", "port-to-br", tap])?;
        Ok(Self { xml, id: id.into(), disk, backing, size, tap: tap.into(), mac: mac.into(), bridge })
    }

    /// Does the work once, and undoes it. Returns how long the doing took, in seconds.
    pub fn once(&self, number: u8) -> anyhow::Result<f64> {
        let one = One::new(self, number)?;
        let begun = std::time::Instant::now();
        let done = one.make(self);
        let took = begun.elapsed().as_secs_f64();
        let undone = one.unmake();
        done?;
        undone?;
        Ok(took)
    }
}

/// One machine made by hand.
struct One {
    id: String,
    tap: String,
    disk: PathBuf,
    xml_file: PathBuf,
    copies: Vec<(PathBuf, PathBuf)>,
    bridge: String,
}

impl One {
    fn new(model: &Model, number: u8) -> anyhow::Result<Self> {
        let id = Uuid::new_v4().to_string();
        let tap = format!("tapbench{number}");
        let disk = model.disk.with_file_name(format!("{id}.qcow2"));
        let mac = format!("52:54:00:be:7c:{number:02x}");
        let xml = model
            .xml
            .replace(&model.disk.display().to_string(), &disk.display().to_string())
            .replace(&model.id, &id)
            .replace(&model.tap, &tap)
            .replace(&model.mac, &mac);
        let directory = model.disk.parent().context("a disk is in a directory")?;
        let xml_file = directory.join(format!("{id}.xml"));
        fs::write(&xml_file, &xml)?;
        let copies = paths_with(&model.xml, &model.id).map(|p| (PathBuf::from(p), p.replace(&model.id, &id).into()));
        Ok(Self { copies: copies.collect(), id, tap, disk, xml_file, bridge: model.bridge.clone() })
    }

    fn make(&self, model: &Model) -> anyhow::Result<()> {
        let disk = self.disk.display().to_string();
        run("qemu-img", &["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", &model.backing, &disk, &model.size])?;
        run("ip", &["tuntap", "add", "dev", &self.tap, "mode", "tap"])?;
        run("ip", &["link", "set", &self.tap, "mtu", "1450", "up"])?;
        run("ovs-vsctl", &["--timeout=10", "add-port", &self.bridge, &self.tap])?;
        // The seed and what else the machine finds in files of its own.
        for (from, to) in &self.copies {
            if let Some(directory) = to.parent() {
                fs::create_dir_all(directory)?;
            }
            if from.is_file() {
                fs::copy(from, to)?;
            }
        }
        virsh(&["define", &self.xml_file.display().to_string()])?;
        virsh(&["start", &self.id])?;
        Ok(())
    }

    /// Undoes whatever was done; the first thing that cannot be undone is the error.
    fn unmake(&self) -> anyhow::Result<()> {
        let steps = [
            virsh(&["destroy", &self.id]),
            virsh(&["undefine", &self.id]),
            run("ovs-vsctl", &["--timeout=10", "--if-exists", "del-port", &self.bridge, &self.tap]),
            run("ip", &["link", "del", &self.tap]),
        ];
        for path in [&self.disk, &self.xml_file].into_iter().chain(self.copies.iter().map(|(_, to)| to)) {
            remove(path)?;
        }
        for directory in self.copies.iter().filter_map(|(_, to)| to.parent()) {
            if directory.to_string_lossy().contains(&self.id) && directory.exists() {
                fs::remove_dir_all(directory)?;
            }
        }
        steps.into_iter().collect::<anyhow::Result<Vec<_>>>().map(|_| ())
    }
}

fn remove(path: &Path) -> std::io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> anyhow::Result<&'a str> {
    let rest = text.split_once(before).with_context(|| format!("no `{before}` in the domain"))?.1;
    Ok(rest.split_once(after).map_or(rest, |(inner, _)| inner))
}

/// Absolute paths in quotes that contain `id`.
fn paths_with<'a>(xml: &'a str, id: &'a str) -> impl Iterator<Item = &'a str> {
    xml.split('\'').filter(move |part| part.starts_with('/') && part.contains(id))
}
