//! storage-agents.

use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use cloud_contracts::agent::{
    self as wire, put_image_request::Message, storage_service_client::StorageServiceClient, volume_spec::Source,
};
use cloud_core::{
    model::{AgentRole, Copied, VolumeSource},
    ports::{
        BackendError, FoundSnapshot, FoundVolume, ImageFile, SnapshotSpec, StorageBackend, StoredVolume, VolumeSpec,
    },
};
use cloud_domain::{HostId, ImageId, SnapshotId, VolumeId};
use cloud_service_kit::{channel::AgentChannel, layers::NoDeadline};
use tokio::{
    fs::File,
    io::AsyncReadExt,
    sync::mpsc,
    time::{Instant, timeout, timeout_at},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Request;

use super::{
    Agents,
    clients::{Found, odd, request},
};

/// Bytes in one message of an image.
const CHUNK: usize = 512 * 1024;
/// How long a transfer may stand still.
const STALL: Duration = Duration::from_secs(15);
/// Bytes that the agent makes durable and verifies in a second, at the least.
const PACE: u64 = 16 << 20;

/// How long the agent may take once it has been sent everything: what was sent may still be on its way.
fn settling(size_bytes: u64) -> Duration {
    STALL + Duration::from_secs(size_bytes / PACE)
}

fn client(found: &Found) -> StorageServiceClient<AgentChannel> {
    StorageServiceClient::new(found.channel.clone())
}

fn found_volume(volume: wire::Volume) -> Result<FoundVolume, BackendError> {
    let owner = volume.owner.ok_or_else(|| odd("a volume without an owner"))?;
    let image = Some(volume.image_id).filter(|id| !id.is_empty()).map(|id| id.parse()).transpose();
    let odd_source = || odd("a volume of something whose id is not a UUID");
    let name = String::new();
    let copied = match (volume.snapshot_id.as_str(), volume.volume_id.as_str()) {
        ("", "") => None,
        ("", id) => Some(Copied::Volume { id: id.parse().map_err(|_| odd_source())?, name }),
        (id, _) => Some(Copied::Snapshot { id: id.parse().map_err(|_| odd_source())?, name }),
    };
    Ok(FoundVolume {
        id: owner.resource_id.parse().map_err(|_| odd("a volume whose id is not a UUID"))?,
        size_bytes: volume.size_bytes,
        image: image.map_err(|_| odd("a volume of an image whose id is not a UUID"))?,
        copied,
        pool: volume.pool,
        path: volume.path,
        format: volume.format,
    })
}

fn found_snapshot(snapshot: wire::Snapshot) -> Result<FoundSnapshot, BackendError> {
    let owner = snapshot.owner.ok_or_else(|| odd("a snapshot without an owner"))?;
    Ok(FoundSnapshot {
        id: owner.resource_id.parse().map_err(|_| odd("a snapshot whose id is not a UUID"))?,
        volume: snapshot.volume_id.parse().map_err(|_| odd("a snapshot of a volume whose id is not a UUID"))?,
        size_bytes: snapshot.size_bytes,
        pool: snapshot.pool,
    })
}

#[async_trait]
impl StorageBackend for Agents {
    async fn has_image(&self, host: HostId, pool: &str, image: ImageId) -> Result<bool, BackendError> {
        let found = self.find(host, AgentRole::Storage)?;
        let message = wire::GetImageRequest { id: image.to_string(), pool: pool.to_owned() };
        match self.call(host, &found, client(&found).get_image(request(message))).await {
            Ok(_) => Ok(true),
            Err(BackendError::NotFound(_)) => Ok(false),
            Err(other) => Err(other),
        }
    }

    async fn put_image(
        &self,
        host: HostId,
        pool: &str,
        image: ImageId,
        version: u64,
        file: ImageFile,
    ) -> Result<(), BackendError> {
        let found = self.find(host, AgentRole::Storage)?;
        let header = wire::ImageHeader {
            context: Some(self.context(&found, version, String::new())),
            id: image.to_string(),
            format: file.format.as_str().to_owned(),
            size_bytes: file.size_bytes,
            sha256: file.sha256.clone(),
            pool: pool.to_owned(),
        };
        let size_bytes = file.size_bytes;
        let _place = self.place(host).await?;
        let (sender, receiver) = mpsc::channel(4);
        let mut message = Request::new(ReceiverStream::new(receiver));
        message.extensions_mut().insert(NoDeadline);
        let mut storage = client(&found);
        let mut answer = std::pin::pin!(storage.put_image(message));
        let mut sending = std::pin::pin!(send(&found, &file, header, sender));
        tokio::select! {
            // The agent may answer before all is sent: it has the image, or does not want it.
            early = &mut answer => return early.map(|_| ()).map_err(|s| found.error(&s)),
            sent = &mut sending => sent?,
        }
        match timeout_at(Instant::now() + settling(size_bytes), answer).await {
            Ok(done) => done.map(|_| ()).map_err(|s| found.error(&s)),
            Err(_) => Err(found.silent("did not say that it has the image")),
        }
    }

    async fn remove_image(&self, host: HostId, image: ImageId, version: u64) -> Result<(), BackendError> {
        let found = self.find(host, AgentRole::Storage)?;
        let context = Some(self.context(&found, version, String::new()));
        let message = wire::RemoveImageRequest { context, id: image.to_string(), pool: String::new() };
        self.call(host, &found, client(&found).remove_image(request(message))).await?;
        Ok(())
    }

    async fn ensure_volume(&self, spec: VolumeSpec) -> Result<StoredVolume, BackendError> {
        let found = self.find(spec.host, AgentRole::Storage)?;
        let message = wire::EnsureVolumeRequest {
            context: Some(self.context(&found, spec.version, String::new())),
            spec: Some(wire::VolumeSpec {
                id: spec.id.to_string(),
                size_bytes: spec.size_bytes,
                pool: spec.pool,
                source: match spec.source {
                    VolumeSource::Blank => None,
                    VolumeSource::Image(id) => Some(Source::ImageId(id.to_string())),
                    VolumeSource::Snapshot(id) => Some(Source::SnapshotId(id.to_string())),
                    VolumeSource::Volume(id) => Some(Source::VolumeId(id.to_string())),
                },
            }),
            may_create: spec.may_create,
        };
        let answer = self.call(spec.host, &found, client(&found).ensure_volume(request(message))).await?;
        let volume = answer.volume.ok_or_else(|| odd("no volume"))?;
        Ok(StoredVolume { id: spec.id, path: volume.path, format: volume.format, pool: volume.pool })
    }

    async fn remove_volume(&self, host: HostId, id: VolumeId, version: u64) -> Result<(), BackendError> {
        let found = self.find(host, AgentRole::Storage)?;
        let context = Some(self.context(&found, version, String::new()));
        let message = wire::RemoveVolumeRequest { context, id: id.to_string(), pool: String::new() };
        self.call(host, &found, client(&found).remove_volume(request(message))).await?;
        Ok(())
    }

    async fn resize_volume(
        &self,
        host: HostId,
        id: VolumeId,
        version: u64,
        size_bytes: u64,
    ) -> Result<(), BackendError> {
        let found = self.find(host, AgentRole::Storage)?;
        let context = Some(self.context(&found, version, String::new()));
        let message = wire::ResizeVolumeRequest { context, id: id.to_string(), size_bytes, pool: String::new() };
        self.call(host, &found, client(&found).resize_volume(request(message))).await?;
        Ok(())
    }

    async fn ensure_snapshot(&self, spec: SnapshotSpec) -> Result<FoundSnapshot, BackendError> {
        let found = self.find(spec.host, AgentRole::Storage)?;
        let message = wire::EnsureSnapshotRequest {
            context: Some(self.context(&found, spec.version, String::new())),
            id: spec.id.to_string(),
            volume_id: spec.volume.to_string(),
            pool: spec.pool,
            may_create: spec.may_create,
        };
        let answer = self.call(spec.host, &found, client(&found).ensure_snapshot(request(message))).await?;
        found_snapshot(answer.snapshot.ok_or_else(|| odd("no snapshot"))?)
    }

    async fn remove_snapshot(&self, host: HostId, id: SnapshotId, version: u64) -> Result<(), BackendError> {
        let found = self.find(host, AgentRole::Storage)?;
        let context = Some(self.context(&found, version, String::new()));
        let message = wire::RemoveSnapshotRequest { context, id: id.to_string(), pool: String::new() };
        self.call(host, &found, client(&found).remove_snapshot(request(message))).await?;
        Ok(())
    }

    async fn list_snapshots(&self, host: HostId) -> Result<Vec<FoundSnapshot>, BackendError> {
        let found = self.find(host, AgentRole::Storage)?;
        let call = async {
            match client(&found).list_snapshots(request(wire::ListSnapshotsRequest {})).await {
                // An agent of the release before takes none, so it has none.
                Err(status) if status.code() == tonic::Code::Unimplemented => {
                    Ok(tonic::Response::new(wire::ListSnapshotsResponse::default()))
                }
                answer => answer,
            }
        };
        self.call(host, &found, call).await?.snapshots.into_iter().map(found_snapshot).collect()
    }

    async fn list_volumes(&self, host: HostId) -> Result<Vec<FoundVolume>, BackendError> {
        let found = self.find(host, AgentRole::Storage)?;
        let call = async { client(&found).list_volumes(request(wire::ListVolumesRequest {})).await };
        self.call(host, &found, call).await?.volumes.into_iter().map(found_volume).collect()
    }
}

/// Sends the header and the file's bytes. Ends early, without an error, where the agent has stopped listening: its answer says why.
async fn send(
    found: &Found,
    file: &ImageFile,
    header: wire::ImageHeader,
    sender: mpsc::Sender<wire::PutImageRequest>,
) -> Result<(), BackendError> {
    let unreadable = |error: std::io::Error| BackendError::Failed(format!("the image's file cannot be read: {error}"));
    let mut source = File::open(&file.path).await.map_err(unreadable)?;
    let mut next = Some(Message::Header(header));
    let mut buffer = BytesMut::with_capacity(CHUNK);
    loop {
        let message = match next.take() {
            Some(header) => header,
            None => {
                buffer.reserve(CHUNK);
                if source.read_buf(&mut buffer).await.map_err(unreadable)? == 0 {
                    return Ok(());
                }
                let data: Bytes = buffer.split().freeze();
                Message::Data(data)
            }
        };
        match timeout(STALL, sender.send(wire::PutImageRequest { message: Some(message) })).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Ok(()),
            Err(_) => return Err(found.silent("takes no more of the image")),
        }
    }
}
