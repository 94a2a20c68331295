//! The agent under test, and what tests ask of it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Output, Stdio},
};

use bytes::Bytes;
use cloud_contracts::agent::{
    CachedImage, CallContext, EnsureSnapshotRequest, EnsureVolumeRequest, ImageHeader, ListImagesRequest,
    ListSnapshotsRequest, ListVolumesRequest, PutImageRequest, RemoveImageRequest, RemoveSnapshotRequest,
    RemoveVolumeRequest, ResizeVolumeRequest, Snapshot, Volume, VolumeSpec, put_image_request::Message,
    storage_service_client::StorageServiceClient, volume_spec::Source,
};
use cloud_service_kit::{Address, ServiceError, channel::connect_lazy};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tonic::{Status, transport::Channel};
use uuid::Uuid;

use crate::gateway::{Gateway, PATIENCE};

pub const MIB: u64 = 1 << 20;

/// A file system of its own for the pool.
pub struct Mount(PathBuf);

impl Mount {
    pub fn tmpfs(path: PathBuf, size: &str) -> Self {
        fs::create_dir_all(&path).unwrap();
        run("mount", &["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs", path.to_str().unwrap()]);
        Self(path)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        run("umount", &["-l", self.0.to_str().unwrap()]);
    }
}

/// Its parts end in this order.
pub struct Agent {
    child: Option<Child>,
    pub mount: Option<Mount>,
    pub gateway: Gateway,
    session: String,
    /// Flags beside the usual ones.
    flags: Vec<String>,
    pub client: StorageServiceClient<Channel>,
    root: TempDir,
}

impl Agent {
    pub async fn start() -> Self {
        Self::start_in(TempDir::new().unwrap(), None, &[]).await
    }

    /// With these flags beside the usual ones.
    pub async fn start_with(flags: &[&str]) -> Self {
        Self::start_in(TempDir::new().unwrap(), None, flags).await
    }

    /// With 24 MiB of space.
    pub async fn start_small() -> Self {
        let root = TempDir::new().unwrap();
        let mount = Mount::tmpfs(root.path().join("pool"), "24m");
        Self::start_in(root, Some(mount), &[]).await
    }

    async fn start_in(root: TempDir, mount: Option<Mount>, flags: &[&str]) -> Self {
        let gateway = Gateway::serve(&root.path().join("host.sock"));
        let socket = Address::Unix(root.path().join("storage.sock"));
        let client = StorageServiceClient::new(connect_lazy(&socket));
        let flags = flags.iter().map(ToString::to_string).collect();
        let mut agent = Self { child: None, mount, gateway, session: String::new(), flags, client, root };
        agent.run().await;
        agent
    }

    pub fn command(root: &Path) -> Command {
        // Where the test runs on another machine than it was built on, it is told where the agent is.
        let agent = std::env::var_os("CLOUD_STORAGE_AGENT");
        let mut command = Command::new(agent.unwrap_or_else(|| env!("CARGO_BIN_EXE_cloud-storage-agent").into()));
        command
            .arg("--gateway")
            .arg(format!("unix:{}", root.join("host.sock").display()))
            .arg("--state-dir")
            .arg(root)
            .arg("--pool-dir")
            .arg(root.join("pool"))
            .arg("--host-id-file")
            .arg(root.join("host-id"))
            .args(["--host-name", "h1", "--pool-reserve-mib", "1", "--log-level", "warn"])
            .stdout(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Starts the agent and waits until it is registered.
    pub async fn run(&mut self) {
        assert!(self.child.is_none());
        self.child = Some(Self::command(self.root.path()).args(&self.flags).spawn().unwrap());
        let before = self.session.clone();
        let mut registered = self.gateway.registered.clone();
        let new = registered.wait_for(|r| r.as_ref().is_some_and(|r| r.session_id != before));
        let new = tokio::time::timeout(PATIENCE, new).await.expect("registered in time").unwrap().clone().unwrap();
        self.session = new.session_id;
        // The answer to the registration may still be on its way.
        self.gateway.hears(|beat| beat.session_id == self.session).await;
    }

    /// SIGKILL.
    pub async fn kill(&mut self) {
        self.child.take().unwrap().kill().await.unwrap();
    }

    /// SIGTERM.
    pub async fn stop(&mut self) {
        let mut child = self.child.take().unwrap();
        let pid = rustix::process::Pid::from_raw(pid_of(&child)).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let status = tokio::time::timeout(PATIENCE, child.wait()).await.expect("ends in time").unwrap();
        assert!(status.success(), "{status}");
    }

    pub fn pid(&self) -> i32 {
        pid_of(self.child.as_ref().unwrap())
    }

    pub fn pool(&self) -> PathBuf {
        self.root.path().join("pool")
    }

    /// The files in a part of the pool, in order.
    pub fn files(&self, part: &str) -> Vec<String> {
        let names = fs::read_dir(self.pool().join(part)).unwrap();
        let mut names: Vec<_> = names.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort_unstable();
        names
    }

    pub fn context(&self) -> Option<CallContext> {
        Some(CallContext {
            cloud_id: self.gateway.cloud.to_string(),
            session_id: self.session.clone(),
            epoch: 1,
            version: 1,
            incarnation: String::new(),
        })
    }

    pub async fn ensure(&self, spec: &VolumeSpec, may_create: bool) -> Result<Volume, Status> {
        let request = EnsureVolumeRequest { context: self.context(), spec: Some(spec.clone()), may_create };
        Ok(self.client.clone().ensure_volume(request).await?.into_inner().volume.unwrap())
    }

    pub async fn remove(&self, id: &str) -> Result<(), Status> {
        let request = RemoveVolumeRequest { context: self.context(), id: id.into(), pool: String::new() };
        self.client.clone().remove_volume(request).await.map(drop)
    }

    pub async fn resize(&self, id: &str, size_bytes: u64) -> Result<Volume, Status> {
        let request = ResizeVolumeRequest { context: self.context(), id: id.into(), size_bytes, pool: String::new() };
        Ok(self.client.clone().resize_volume(request).await?.into_inner().volume.unwrap())
    }

    pub async fn snapshot(&self, id: &str, volume_id: &str, may_create: bool) -> Result<Snapshot, Status> {
        let context = self.context();
        let (id, volume_id, pool) = (id.to_owned(), volume_id.to_owned(), String::new());
        let request = EnsureSnapshotRequest { context, id, volume_id, pool, may_create };
        Ok(self.client.clone().ensure_snapshot(request).await?.into_inner().snapshot.unwrap())
    }

    pub async fn remove_snapshot(&self, id: &str) -> Result<(), Status> {
        let request = RemoveSnapshotRequest { context: self.context(), id: id.into(), pool: String::new() };
        self.client.clone().remove_snapshot(request).await.map(drop)
    }

    pub async fn snapshots(&self) -> Result<Vec<Snapshot>, Status> {
        Ok(self.client.clone().list_snapshots(ListSnapshotsRequest {}).await?.into_inner().snapshots)
    }

    pub async fn volumes(&self) -> Result<Vec<Volume>, Status> {
        Ok(self.client.clone().list_volumes(ListVolumesRequest {}).await?.into_inner().volumes)
    }

    pub fn header(&self, id: &str, format: &str, bytes: &[u8]) -> ImageHeader {
        ImageHeader {
            context: self.context(),
            id: id.into(),
            format: format.into(),
            size_bytes: bytes.len() as u64,
            sha256: hex::encode(Sha256::digest(bytes)),
            pool: String::new(),
        }
    }

    pub async fn put(&self, header: ImageHeader, bytes: &[u8]) -> Result<CachedImage, Status> {
        let messages = messages(header, bytes);
        Ok(self.client.clone().put_image(tokio_stream::iter(messages)).await?.into_inner().image.unwrap())
    }

    /// Puts an image whose header is right.
    pub async fn put_whole(&self, format: &str, bytes: &[u8]) -> Result<CachedImage, Status> {
        self.put(self.header(&Uuid::new_v4().to_string(), format, bytes), bytes).await
    }

    pub async fn remove_image(&self, id: &str) -> Result<(), Status> {
        let request = RemoveImageRequest { context: self.context(), id: id.into(), pool: String::new() };
        self.client.clone().remove_image(request).await.map(drop)
    }

    pub async fn images(&self) -> Result<Vec<CachedImage>, Status> {
        Ok(self.client.clone().list_images(ListImagesRequest {}).await?.into_inner().images)
    }
}

fn pid_of(child: &Child) -> i32 {
    child.id().unwrap().try_into().unwrap()
}

pub fn messages(header: ImageHeader, bytes: &[u8]) -> Vec<PutImageRequest> {
    let data = bytes.chunks(256 << 10).map(|part| Message::Data(Bytes::copy_from_slice(part)));
    let all = std::iter::once(Message::Header(header)).chain(data);
    all.map(|message| PutImageRequest { message: Some(message) }).collect()
}

pub fn blank(mib: u64) -> VolumeSpec {
    VolumeSpec { id: Uuid::new_v4().to_string(), size_bytes: mib * MIB, source: None, pool: String::new() }
}

pub fn from(image: &CachedImage, mib: u64) -> VolumeSpec {
    VolumeSpec { source: Some(Source::ImageId(image.id.clone())), ..blank(mib) }
}

pub fn copy_of(source: Source, mib: u64) -> VolumeSpec {
    VolumeSpec { source: Some(source), ..blank(mib) }
}

/// The reason that a refusal gives.
pub fn reason<T: std::fmt::Debug>(result: Result<T, Status>) -> String {
    ServiceError::from_status(&result.unwrap_err()).reason.to_string()
}

pub fn run(program: &str, args: &[&str]) -> Output {
    let output = std::process::Command::new(program).args(args).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// The bytes of an image made by `qemu-img create`.
pub fn image_bytes(args: &[&str]) -> Vec<u8> {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("image");
    let path = path.to_str().unwrap();
    run("qemu-img", &[&["create", "-q"], args, &[path, "8M"]].concat());
    fs::read(path).unwrap()
}

/// A qcow2 image of 8 MiB whose first MiB is 0xa5.
pub fn patterned() -> Vec<u8> {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("image");
    let path = path.to_str().unwrap();
    run("qemu-img", &["create", "-q", "-f", "qcow2", path, "8M"]);
    run("qemu-io", &["-f", "qcow2", "-c", "write -P 0xa5 0 1M", path]);
    fs::read(path).unwrap()
}

/// Writes this byte over this range, as a guest would, and flushes.
pub fn writes(volume: &Volume, pattern: &str, range: &str) {
    run("qemu-io", &["-f", &volume.format, "-c", &format!("write -P {pattern} {range}"), "-c", "flush", &volume.path]);
}

/// Whether a guest would read this byte over this range.
pub fn reads(volume: &Volume, pattern: &str, range: &str) -> bool {
    let read = format!("read -P {pattern} {range}");
    let output = run("qemu-io", &["-r", "-f", &volume.format, "-c", &read, &volume.path]);
    !String::from_utf8_lossy(&output.stdout).contains("Pattern verification failed")
}

/// What `qemu-img` says of a volume.
pub fn info(volume: &Volume) -> serde_json::Value {
    let output = run("qemu-img", &["info", "--output=json", "-f", "qcow2", &volume.path]);
    serde_json::from_slice(&output.stdout).unwrap()
}
