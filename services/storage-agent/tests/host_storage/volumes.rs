use std::{
    fs,
    io::Read as _,
    os::unix::fs::PermissionsExt as _,
    process::{Child, ChildStdin, Command, Stdio},
};

use cloud_contracts::agent::{CallContext, EnsureVolumeRequest, VolumeSpec, volume_spec::Source};
use futures::future::join_all;
use tonic::Code;
use uuid::Uuid;

use crate::agent::{Agent, MIB, blank, from, info, patterned, reads, reason, run};

#[tokio::test]
async fn a_volume_lives_from_its_image_to_its_end() {
    let agent = Agent::start().await;
    let image = agent.put_whole("qcow2", &patterned()).await.unwrap();
    assert_eq!(image.virtual_size_bytes, 8 * MIB);
    let spec = from(&image, 16);
    assert_eq!(reason(agent.ensure(&spec, false).await), "DATA_MISSING");
    let volume = agent.ensure(&spec, true).await.unwrap();
    assert_eq!((volume.size_bytes, volume.format.as_str(), volume.pool.as_str()), (16 * MIB, "qcow2", "default"));
    let owner = volume.owner.clone().unwrap();
    assert_eq!((owner.cloud_id, owner.resource_id), (agent.gateway.cloud.to_string(), spec.id.clone()));
    assert_eq!(fs::metadata(&volume.path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(volume.allocated_bytes > 0 && volume.allocated_bytes < MIB);

    let said = info(&volume);
    assert_eq!(said["backing-filename"], format!("../images/{}.qcow2", image.id));
    assert_eq!(said["backing-filename-format"], "qcow2");
    assert!(reads(&volume, "0xa5", "0 1M") && reads(&volume, "0", "1M 15M"), "the image's bytes, then zeros");

    run("qemu-io", &["-f", "qcow2", "-c", "write -P 0x11 2M 1M", &volume.path]);
    let volume = agent.ensure(&spec, false).await.unwrap();
    assert!(volume.allocated_bytes > MIB, "{}", volume.allocated_bytes);
    let grown = agent.resize(&spec.id, 32 * MIB).await.unwrap();
    assert_eq!(grown.size_bytes, 32 * MIB);
    assert!(reads(&grown, "0x11", "2M 1M") && reads(&grown, "0", "16M 16M"));
    assert_eq!(agent.volumes().await.unwrap(), [grown]);

    assert_eq!(reason(agent.remove_image(&image.id).await), "IMAGE_IN_USE");
    for _ in 0..2 {
        agent.remove(&spec.id).await.unwrap();
        agent.remove_image(&image.id).await.unwrap();
    }
    assert!(agent.files("volumes").is_empty() && agent.files("images").is_empty());
}

#[tokio::test]
async fn a_blank_volume_and_one_from_a_raw_image() {
    let agent = Agent::start().await;
    let volume = agent.ensure(&blank(1 << 20), true).await.unwrap();
    assert_eq!(info(&volume)["virtual-size"], 1_u64 << 40);
    assert!(info(&volume)["backing-filename"].is_null() && volume.allocated_bytes < 40 * MIB);
    // A guest's raw disk that looks like a qcow2 file from the outside is never taken for one.
    let raw = vec![0x5a; usize::try_from(MIB).unwrap()];
    let image = agent.put_whole("raw", &raw).await.unwrap();
    let volume = agent.ensure(&from(&image, 1), true).await.unwrap();
    assert_eq!(info(&volume)["backing-filename-format"], "raw");
    assert!(reads(&volume, "0x5a", "0 1M"));
}

#[tokio::test]
async fn many_at_once_the_same_and_different_ones() {
    let agent = Agent::start().await;
    let image = agent.put_whole("qcow2", &patterned()).await.unwrap();
    let same = from(&image, 8);
    let volumes = join_all((0..20).map(|_| agent.ensure(&same, true))).await;
    let volumes: Vec<_> = volumes.into_iter().map(Result::unwrap).collect();
    assert!(volumes.iter().all(|volume| *volume == volumes[0]));
    assert_eq!(agent.files("volumes").len(), 2);

    let specs: Vec<_> = (0..40).map(|_| from(&image, 8)).collect();
    for volume in join_all(specs.iter().map(|spec| agent.ensure(spec, true))).await {
        assert!(reads(&volume.unwrap(), "0xa5", "0 1M"));
    }
    assert_eq!(agent.volumes().await.unwrap().len(), 41);
    let gone = join_all(specs.iter().flat_map(|spec| [agent.remove(&spec.id), agent.remove(&spec.id)])).await;
    assert!(gone.into_iter().all(|removed| removed.is_ok()));
    assert_eq!(agent.files("volumes").len(), 2);
}

#[tokio::test]
async fn bad_requests_name_the_field_and_leave_nothing() {
    let agent = Agent::start().await;
    let image = Uuid::new_v4().to_string();
    let good = blank(1);
    let cases = [
        ("spec.id", VolumeSpec { id: "../../etc/passwd".into(), ..good.clone() }),
        ("spec.size_bytes", VolumeSpec { size_bytes: 0, ..good.clone() }),
        ("spec.size_bytes", VolumeSpec { size_bytes: MIB + 1, ..good.clone() }),
        ("spec.size_bytes", VolumeSpec { size_bytes: !(MIB - 1), ..good.clone() }),
        ("spec.pool", VolumeSpec { pool: "../x".into(), ..good.clone() }),
        ("spec.pool", VolumeSpec { pool: "ssd".into(), ..good.clone() }),
        ("spec.image_id", VolumeSpec { source: Some(Source::ImageId("x".into())), ..good.clone() }),
        ("spec.snapshot_id", VolumeSpec { source: Some(Source::SnapshotId("x".into())), ..good.clone() }),
        ("spec.volume_id", VolumeSpec { source: Some(Source::VolumeId(good.id.clone())), ..good.clone() }),
    ];
    for (field, spec) in cases {
        let status = agent.ensure(&spec, true).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{field}: {status:?}");
        assert!(status.message().contains(field), "{field}: {status:?}");
    }
    let uncached = VolumeSpec { source: Some(Source::ImageId(image)), ..good };
    assert_eq!(reason(agent.ensure(&uncached, true).await), "IMAGE_NOT_CACHED");
    assert!(agent.files("volumes").is_empty());
}

#[tokio::test]
async fn calls_of_others_and_of_the_past_are_refused() {
    let agent = Agent::start().await;
    let ensure = async |context: CallContext, spec: &VolumeSpec| {
        let request = EnsureVolumeRequest { context: Some(context), spec: Some(spec.clone()), may_create: true };
        agent.client.clone().ensure_volume(request).await
    };
    let (spec, context) = (blank(1), agent.context().unwrap());
    let other_cloud = CallContext { cloud_id: Uuid::new_v4().to_string(), ..context.clone() };
    assert_eq!(reason(ensure(other_cloud, &spec).await), "WRONG_CLOUD");
    let other_session = CallContext { session_id: Uuid::new_v4().to_string(), ..context.clone() };
    assert_eq!(reason(ensure(other_session, &spec).await), "WRONG_SESSION");
    ensure(CallContext { version: 7, ..context.clone() }, &spec).await.unwrap();
    assert_eq!(reason(ensure(CallContext { version: 6, ..context.clone() }, &spec).await), "STALE_CALL");
    ensure(CallContext { epoch: 2, ..context }, &spec).await.unwrap();
    assert_eq!(agent.files("volumes").len(), 2);
}

/// A process that has an image open, as a hypervisor has.
pub struct Opener(Child, #[allow(dead_code)] ChildStdin);

impl Opener {
    pub fn open(path: &str) -> Self {
        let mut child = Command::new("qemu-io")
            .args(["-f", "qcow2", path])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut prompt = [0];
        child.stdout.as_mut().unwrap().read_exact(&mut prompt).unwrap();
        let stdin = child.stdin.take().unwrap();
        Self(child, stdin)
    }
}

impl Drop for Opener {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[tokio::test]
async fn a_volume_that_a_process_has_open_is_neither_grown_nor_removed() {
    let agent = Agent::start().await;
    let spec = blank(8);
    let volume = agent.ensure(&spec, true).await.unwrap();
    let opener = Opener::open(&volume.path);
    assert_eq!(reason(agent.resize(&spec.id, 16 * MIB).await), "VOLUME_IN_USE");
    assert_eq!(reason(agent.remove(&spec.id).await), "VOLUME_IN_USE");
    assert_eq!(agent.ensure(&spec, false).await.unwrap(), volume);
    drop(opener);
    assert_eq!(agent.resize(&spec.id, 16 * MIB).await.unwrap().size_bytes, 16 * MIB);
    let shrink = agent.resize(&spec.id, 8 * MIB).await.unwrap_err();
    assert_eq!(shrink.code(), Code::InvalidArgument);
    agent.remove(&spec.id).await.unwrap();
}

/// As libvirt does it: the volume is handed to the hypervisor's user while a guest runs, its image is only read.
#[tokio::test]
async fn another_user_reaches_a_volume_that_it_was_handed() {
    let agent = Agent::start().await;
    let image = agent.put_whole("qcow2", &patterned()).await.unwrap();
    let volume = agent.ensure(&from(&image, 8), true).await.unwrap();
    let (nobody, pattern) = (65_534, "read -P 0xa5 0 1M");
    let read = ["--reuid", "65534", "--regid", "65534", "--clear-groups", "qemu-io", "-f", "qcow2", "-c", pattern];
    let read = || Command::new("setpriv").args(read).arg(&volume.path).output().unwrap();
    assert!(!read().status.success(), "another tenant's process does not");
    std::os::unix::fs::chown(&volume.path, Some(nobody), Some(nobody)).unwrap();
    let output = read();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    agent.remove(&volume.owner.unwrap().resource_id).await.unwrap();
}

/// What a gateway's inventory goes by.
#[tokio::test]
async fn a_file_that_somebody_took_away_is_missing_until_it_is_back() {
    let agent = Agent::start().await;
    let image = agent.put_whole("qcow2", &patterned()).await.unwrap();
    let (lost, kept) = (from(&image, 8), blank(1));
    let volume = agent.ensure(&lost, true).await.unwrap();
    let other = agent.ensure(&kept, true).await.unwrap();
    assert_eq!((volume.image_id.as_str(), other.image_id.as_str()), (image.id.as_str(), ""));
    run("qemu-io", &["-f", "qcow2", "-c", "write -P 0x11 2M 1M", &volume.path]);
    let aside = format!("{}.aside", volume.path);
    fs::rename(&volume.path, &aside).unwrap();
    assert_eq!(agent.volumes().await.unwrap(), std::slice::from_ref(&other));
    for may_create in [false, true] {
        assert_eq!(reason(agent.ensure(&lost, may_create).await), "DATA_MISSING", "never made anew");
    }
    // One that cannot be read hides no other, and is not said to be missing.
    fs::write(&volume.path, "rubbish").unwrap();
    assert_eq!(agent.volumes().await.unwrap(), [other]);
    assert_ne!(reason(agent.ensure(&lost, false).await), "DATA_MISSING");
    fs::rename(&aside, &volume.path).unwrap();
    assert_eq!(agent.volumes().await.unwrap().len(), 2);
    assert!(reads(&agent.ensure(&lost, false).await.unwrap(), "0x11", "2M 1M"));
}
