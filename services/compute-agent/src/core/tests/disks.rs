//! Disks that come and go: every step may fail, and the next call ends what it began.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use cloud_domain::{CloudId, DiskLimits, VolumeId};

use super::fake::{Fake, guest, spec};
use crate::core::{
    Compute, ComputeError, Disk, DiskFormat, Ended, Found, GuestSpec, HypervisorError, Power, Reason, Tag,
};

struct Bench {
    fake: Arc<Fake>,
    compute: Compute,
    cloud: CloudId,
    spec: GuestSpec,
}

/// A guest that runs.
async fn bench() -> Bench {
    let fake = Arc::new(Fake::default());
    let compute = Compute::new(fake.clone());
    let (cloud, spec) = (CloudId::random(), spec());
    compute.set_cloud(cloud);
    compute.ensure(cloud, spec.clone()).await.unwrap();
    fake.steps();
    Bench { fake, compute, cloud, spec }
}

fn disk() -> Disk {
    Disk {
        volume: VolumeId::random(),
        path: "/pool/data.qcow2".into(),
        format: DiskFormat::Qcow2,
        read_only: false,
        limits: DiskLimits::default(),
    }
}

impl Bench {
    async fn attach(&self, disk: &Disk) -> Result<Vec<String>, ComputeError> {
        let kept = format!("with {}", disk.volume);
        Ok(self.compute.attach_disk(self.cloud, self.spec.id, disk.clone(), kept).await?.tag.spec.volumes())
    }

    async fn detach(&self, volume: VolumeId) -> Result<Vec<String>, ComputeError> {
        let kept = format!("without {volume}");
        let guest = self.compute.detach_disk(self.cloud, self.spec.id, volume, kept).await?;
        Ok(guest.unwrap().tag.spec.volumes())
    }

    fn record(&self) -> String {
        self.fake.record.lock().unwrap().clone()
    }
}

#[tokio::test(start_paused = true)]
async fn a_disk_comes_and_goes_under_its_guest() {
    let bench = bench().await;
    let (disk, root) = (disk(), bench.spec.disks[0].volume.to_string());
    let both = [root.clone(), disk.volume.to_string()];
    assert_eq!(bench.attach(&disk).await.unwrap(), both);
    assert_eq!(bench.fake.steps(), ["tag", "attach disk", "record"]);
    assert_eq!(bench.record(), format!("with {}", disk.volume));
    assert_eq!(bench.attach(&disk).await.unwrap(), both, "once more is once");
    assert_eq!(bench.fake.steps(), ["attach disk", "record"]);
    // What it was started with is no difference to what it has.
    bench.compute.ensure(bench.cloud, bench.spec.clone()).await.unwrap();

    assert_eq!(bench.detach(disk.volume).await.unwrap(), std::slice::from_ref(&root));
    assert_eq!(bench.fake.steps(), ["detach disk", "tag", "record"]);
    assert_eq!(bench.record(), format!("without {}", disk.volume));
    assert_eq!(bench.detach(disk.volume).await.unwrap(), [root], "what it has not is released");
    assert!(bench.fake.disks.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_its_guest_has_is_given_other_limits() {
    let bench = bench().await;
    let limits = DiskLimits { total_iops_sec: 100, total_bytes_sec: 1_000_000 };
    let limited = |spec: &GuestSpec| bench.fake.tagged(spec.id).unwrap().limits[&spec.disks[0].volume];
    let root = Disk { limits, ..bench.spec.disks[0].clone() };
    assert_eq!(bench.attach(&root).await.unwrap().len(), 1, "it is no other disk");
    assert_eq!(bench.fake.steps(), ["attach disk", "record"]);
    assert_eq!(limited(&bench.spec), limits);
    // They are no difference, and a start gives the guest those of then.
    bench.compute.ensure(bench.cloud, bench.spec.clone()).await.unwrap();
    assert_eq!(limited(&bench.spec), limits, "a guest that runs is given them by nothing else");
    bench.fake.change(bench.spec.id, |guest| guest.power = Power::Shutoff).unwrap();
    let spec = GuestSpec { disks: vec![root], ..bench.spec.clone() };
    bench.compute.ensure(bench.cloud, spec.clone()).await.unwrap();
    assert_eq!(bench.fake.steps(), ["define", "start", "tag"]);
    assert_eq!(limited(&spec), limits);

    let more = DiskLimits { total_bytes_sec: 1_000_000_000_000_001, ..limits };
    let error = bench.attach(&Disk { limits: more, ..disk() }).await.unwrap_err();
    assert!(matches!(error, ComputeError::Invalid(error) if error.field == "disk.total_bytes_sec"));
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_holds_a_disk_is_said_to_have_it_until_it_ends() {
    let bench = bench().await;
    let disk = disk();
    bench.attach(&disk).await.unwrap();
    bench.fake.holds.store(true, Relaxed);
    for _ in 0..2 {
        assert_eq!(bench.detach(disk.volume).await.unwrap().len(), 2);
        assert_eq!(bench.record(), format!("with {}", disk.volume));
    }
    bench.fake.ends(bench.spec.id, Ended::GuestShutdown);
    assert_eq!(bench.detach(disk.volume).await.unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_step_that_fails_is_done_by_the_next_call() {
    for step in ["tag", "attach disk", "record"] {
        let bench = bench().await;
        let disk = disk();
        bench.fake.fail.lock().unwrap().push(step);
        let error = bench.attach(&disk).await.unwrap_err();
        assert!(matches!(error, ComputeError::Hypervisor(HypervisorError::Failed { action, .. }) if action == step));
        // Whatever it came to, it can be taken away again, or ended.
        if step == "attach disk" {
            assert_eq!(bench.detach(disk.volume).await.unwrap().len(), 1);
        }
        assert_eq!(bench.attach(&disk).await.unwrap().len(), 2);
        assert!(bench.fake.disks.lock().unwrap().contains(&disk.volume));
    }
    for step in ["detach disk", "tag", "record"] {
        let bench = bench().await;
        let disk = disk();
        bench.attach(&disk).await.unwrap();
        bench.fake.fail.lock().unwrap().push(step);
        bench.detach(disk.volume).await.unwrap_err();
        assert_eq!(bench.detach(disk.volume).await.unwrap().len(), 1);
        assert_eq!(bench.record(), format!("without {}", disk.volume));
    }
}

#[tokio::test(start_paused = true)]
async fn what_does_not_run_or_is_not_ours_takes_no_disk() {
    let bench = bench().await;
    let relative = Disk { path: "data.qcow2".into(), ..disk() };
    assert!(matches!(bench.attach(&relative).await, Err(ComputeError::Invalid(error)) if error.field == "disk.path"));
    for _ in 1..GuestSpec::MAX_DISKS {
        bench.attach(&disk()).await.unwrap();
    }
    let error = bench.attach(&disk()).await.unwrap_err();
    assert!(error.to_string().contains("the guest has 16 disks"), "{error}");
    bench.fake.steps();
    bench.fake.ends(bench.spec.id, Ended::Crashed);
    assert!(matches!(bench.attach(&disk()).await, Err(ComputeError::NotRunning(_))));
    let nobody = bench.compute.detach_disk(bench.cloud, spec().id, disk().volume, String::new()).await.unwrap();
    assert_eq!(nobody, None, "no guest has no disk");

    let theirs = guest(CloudId::random(), &bench.spec, Power::Running, Reason::Unknown);
    bench.fake.lock().insert(bench.spec.id, Found::Tagged(theirs.clone()));
    assert!(matches!(bench.attach(&disk()).await, Err(ComputeError::Foreign { .. })));
    assert!(matches!(bench.detach(disk().volume).await, Err(ComputeError::Foreign { .. })));
    let Tag { spec: is, .. } = bench.fake.tagged(bench.spec.id).unwrap().tag;
    assert_eq!(is, theirs.tag.spec);
    assert!(!bench.fake.steps().contains(&"attach disk"));
}
