use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use cloud_domain::{CloudId, ImageId, VolumeId};
use proptest::prelude::*;
use tempfile::TempDir;
use uuid::Uuid;

use super::{
    record::{RECORD_FORM, Record as _},
    *,
};
use crate::{
    adapters::files,
    core::model::{Format, Sha256, Source},
};

struct Place {
    root: TempDir,
}

impl Place {
    fn new() -> Self {
        Self { root: TempDir::new().unwrap() }
    }

    fn directory(&self) -> PathBuf {
        self.root.path().join("pools/default")
    }

    fn memory(&self) -> PathBuf {
        self.root.path().join("memory.json")
    }

    fn open(&self) -> Result<Directory, PoolError> {
        Directory::open(Options {
            name: "default".parse().unwrap(),
            directory: self.directory(),
            memory: self.memory(),
            max_commands: 1,
            probe: Limits::default(),
            handover: Duration::ZERO,
        })
    }

    fn files(&self) -> Vec<String> {
        ["volumes", "images"].iter().flat_map(|part| files::names(&self.directory().join(part)).unwrap()).collect()
    }
}

fn owner() -> Owner {
    Owner { cloud_id: CloudId::from(Uuid::nil()), epoch: 1, version: 2, incarnation: None }
}

fn record(id: VolumeId, state: VolumeState) -> VolumeRecord {
    let source = Source::Blank;
    let pool = "default".parse().unwrap();
    VolumeRecord { form: RECORD_FORM, id, owner: owner(), state, source, created_size_bytes: 1 << 20, pool, base: None }
}

/// The first bytes of a qcow2 file for 2 MiB.
fn head() -> Vec<u8> {
    let mut head = vec![0; 512];
    head[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
    head[24..32].copy_from_slice(&(2_u64 << 20).to_be_bytes());
    head[100..104].copy_from_slice(&104_u32.to_be_bytes());
    head
}

/// Leaves a volume in the pool as a crash may have: its record in a state, and its data.
fn leave(pool: &Pool, state: Option<VolumeState>, data: bool) -> VolumeId {
    let id = VolumeId::random();
    if let Some(state) = state {
        record(id, state).write(&pool.volume_record(id)).unwrap();
    }
    if data {
        fs::write(pool.volume(id), head()).unwrap();
    }
    id
}

#[test]
fn a_new_pool_is_made_in_an_empty_directory_once() {
    let place = Place::new();
    let pool_id = |directory: &Directory| directory.pool.space().unwrap().pool_id;
    let first = pool_id(&place.open().unwrap());
    for part in ["", "volumes", "images"] {
        let mode = fs::metadata(place.directory().join(part)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o711, "{part}");
    }
    assert_eq!(pool_id(&place.open().unwrap()), first);
    fs::remove_file(place.memory()).unwrap();
    assert_eq!(pool_id(&place.open().unwrap()), first, "a pool that came from another host");
}

#[test]
fn a_creation_that_was_cut_off_is_completed() {
    let place = Place::new();
    fs::create_dir_all(place.directory().join("volumes")).unwrap();
    fs::create_dir_all(place.directory().join("lost+found")).unwrap();
    fs::write(place.directory().join(".pool.json.0123.tmp"), "{").unwrap();
    place.open().unwrap();
    assert!(!place.directory().join(".pool.json.0123.tmp").exists());
}

#[test]
fn a_directory_with_anything_else_is_refused_and_left_alone() {
    for name in ["photo.jpg", "volumes/0.qcow2", "images/x"] {
        let place = Place::new();
        let path = place.directory().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "mine").unwrap();
        let error = place.open().err().unwrap();
        assert!(matches!(error, PoolError::NotEmpty(_)), "{name}: {error}");
        assert_eq!(fs::read(path).unwrap(), b"mine");
        assert!(!place.directory().join("pool.json").exists());
    }
}

#[test]
fn an_unmounted_or_another_file_system_is_refused() {
    let place = Place::new();
    drop(place.open().unwrap());
    let away = place.root.path().join("away");
    fs::rename(place.directory(), &away).unwrap();
    assert!(matches!(place.open(), Err(PoolError::Gone { .. })), "the mount point is empty");
    let other = Place::new();
    drop(other.open().unwrap());
    fs::remove_dir(place.directory()).unwrap();
    fs::rename(other.directory(), place.directory()).unwrap();
    assert!(matches!(place.open(), Err(PoolError::Another { .. })));
    fs::remove_dir_all(place.directory()).unwrap();
    fs::rename(away, place.directory()).unwrap();
    place.open().unwrap();
}

#[test]
fn a_pool_without_its_parts_or_with_a_strange_marker_is_refused() {
    let place = Place::new();
    drop(place.open().unwrap());
    fs::remove_dir(place.directory().join("images")).unwrap();
    assert!(matches!(place.open(), Err(PoolError::Incomplete(_))));
    for marker in ["", "{}", r#"{"form":9,"pool_id":"00000000-0000-0000-0000-000000000000"}"#] {
        fs::write(place.directory().join("pool.json"), marker).unwrap();
        assert!(matches!(place.open(), Err(PoolError::Marker { .. })), "{marker}");
    }
}

#[test]
fn one_agent_has_the_pool() {
    let place = Place::new();
    let first = place.open().unwrap();
    assert!(matches!(place.open(), Err(PoolError::InUse(_))));
    drop(first);
    place.open().unwrap();
}

#[tokio::test]
async fn without_its_marker_the_pool_says_nothing() {
    let place = Place::new();
    let directory = place.open().unwrap();
    let id = leave(&directory.pool, Some(VolumeState::Ready), true);
    let marker = place.directory().join("pool.json");
    let good = fs::read(&marker).unwrap();
    let other = String::from_utf8(good.clone())
        .unwrap()
        .replace(&directory.pool.space().unwrap().pool_id, &Uuid::new_v4().to_string());
    let unhealthy = |error: StorageError| assert!(matches!(error, StorageError::PoolNotHealthy { .. }), "{error}");
    for bad in [None, Some(""), Some(other.as_str())] {
        match bad {
            None => fs::remove_file(&marker).unwrap(),
            Some(text) => fs::write(&marker, text).unwrap(),
        }
        unhealthy(directory.status().await.unwrap_err());
        unhealthy(directory.find_volume(id).await.unwrap_err());
        unhealthy(directory.find_volume(VolumeId::random()).await.unwrap_err());
        unhealthy(directory.volumes().await.unwrap_err());
        unhealthy(directory.remove_volume(id).await.unwrap_err());
        unhealthy(directory.find_image(ImageId::random()).await.unwrap_err());
        unhealthy(directory.images().await.unwrap_err());
    }
    fs::write(&marker, good).unwrap();
    directory.status().await.unwrap();
    assert!(matches!(directory.find_volume(id).await.unwrap(), FoundVolume::Whole(_)));
    assert_eq!(place.files().len(), 2, "no trace of the proofs");
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_does_not_answer_holds_one_thread() {
    let place = Place::new();
    let directory = place.open().unwrap();
    let (answer, disk) = std::sync::mpsc::channel::<()>();
    let hang = directory.prove(move |_| {
        disk.recv().unwrap();
        Ok(())
    });
    // Time does not pass by itself while a thread blocks.
    let later = async {
        tokio::task::yield_now().await;
        tokio::time::advance(HEALTH_DEADLINE).await;
    };
    let unhealthy = |error: StorageError| assert!(error.to_string().contains("did not answer"), "{error}");
    unhealthy(tokio::join!(hang, later).0.unwrap_err());
    unhealthy(directory.find_volume(VolumeId::random()).await.unwrap_err());
    let again = directory.prove(|_| panic!("begun while another one hangs"));
    unhealthy(tokio::join!(again, async { tokio::time::advance(HEALTH_DEADLINE).await }).0.unwrap_err());
    answer.send(()).unwrap();
    directory.status().await.unwrap();
    directory.find_volume(VolumeId::random()).await.unwrap();
}

#[tokio::test]
async fn every_state_that_a_crash_leaves_has_its_name() {
    let place = Place::new();
    let directory = place.open().unwrap();
    let found = async |state, data| {
        let id = leave(&directory.pool, state, data);
        directory.find_volume(id).await.unwrap()
    };
    use VolumeState::{Creating, Ready, Removing};
    assert!(matches!(found(None, false).await, FoundVolume::Nothing));
    assert!(matches!(found(None, true).await, FoundVolume::Foreign(_)));
    assert!(matches!(found(Some(Ready), false).await, FoundVolume::Lost(_)));
    for (state, data) in [(Creating, false), (Creating, true), (Removing, true), (Removing, false)] {
        assert!(matches!(found(Some(state), data).await, FoundVolume::Unfinished(_)), "{state:?} {data}");
    }
    let FoundVolume::Whole(volume) = found(Some(Ready), true).await else { panic!() };
    assert_eq!((volume.created_size_bytes, volume.size_bytes), (1 << 20, 2 << 20), "the size is the data's");
    assert_eq!(directory.volumes().await.unwrap(), [volume]);
}

#[tokio::test]
async fn removal_ends_from_every_state_and_never_takes_what_is_foreign() {
    let place = Place::new();
    let directory = place.open().unwrap();
    let foreign = leave(&directory.pool, None, true);
    for state in [VolumeState::Creating, VolumeState::Ready, VolumeState::Removing] {
        for data in [false, true] {
            let id = leave(&directory.pool, Some(state), data);
            directory.remove_volume(id).await.unwrap();
            directory.remove_volume(id).await.unwrap();
            assert_eq!(directory.find_volume(id).await.unwrap(), FoundVolume::Nothing, "{state:?} {data}");
        }
    }
    directory.remove_volume(foreign).await.unwrap();
    assert_eq!(place.files(), [format!("{foreign}.qcow2")]);
}

#[test]
fn a_start_clears_what_was_half_done_and_nothing_else() {
    let place = Place::new();
    let directory = place.open().unwrap();
    let pool = &directory.pool;
    let mut stay = vec!["notes.txt".to_owned(), "disk.qcow2".to_owned()];
    for name in &stay {
        fs::write(pool.volumes().join(name), "mine").unwrap();
    }
    let ready = leave(pool, Some(VolumeState::Ready), true);
    let lost = leave(pool, Some(VolumeState::Ready), false);
    let foreign = leave(pool, None, true);
    let damaged = leave(pool, Some(VolumeState::Creating), true);
    fs::write(pool.volume_record(damaged), "{").unwrap();
    for state in [VolumeState::Creating, VolumeState::Removing] {
        leave(pool, Some(state), true);
        leave(pool, Some(state), false);
    }
    fs::write(pool.volumes().join(format!(".{ready}.0123.tmp")), "x").unwrap();
    fs::write(pool.images().join(".image.0123.tmp"), "x").unwrap();
    drop(directory);
    drop(place.open().unwrap());
    stay.extend([format!("{ready}.qcow2"), format!("{ready}.json"), format!("{lost}.json")]);
    stay.extend([format!("{foreign}.qcow2"), format!("{damaged}.qcow2"), format!("{damaged}.json")]);
    stay.sort_unstable();
    assert_eq!(place.files(), stay);
}

#[tokio::test]
async fn a_record_that_cannot_be_relied_on_is_an_error_and_not_an_absence() {
    let place = Place::new();
    let directory = place.open().unwrap();
    let path = |id| directory.pool.volume_record(id);
    let id = leave(&directory.pool, Some(VolumeState::Ready), true);
    let other = VolumeId::random();
    fs::copy(path(id), path(other)).unwrap();
    let newer = leave(&directory.pool, Some(VolumeState::Ready), true);
    VolumeRecord { form: 2, ..record(newer, VolumeState::Ready) }.write(&path(newer)).unwrap();
    for id in [other, newer] {
        assert!(matches!(directory.find_volume(id).await, Err(StorageError::Backend { .. })));
        assert!(matches!(directory.remove_volume(id).await, Err(StorageError::Backend { .. })));
        assert!(path(id).exists());
    }
    // In a list it hides no other: who misses it asks for it, and is told.
    let listed: Vec<_> = directory.volumes().await.unwrap().into_iter().map(|v| v.id).collect();
    assert_eq!(listed, [id]);
}

fn image_spec(size_bytes: u64) -> ImageSpec {
    ImageSpec { id: ImageId::random(), format: Format::Raw, size_bytes, sha256: Sha256::from([7; 32]) }
}

#[tokio::test]
async fn an_upload_leaves_nothing_unless_committed() {
    let place = Place::new();
    let directory = place.open().unwrap();
    let spec = image_spec(1 << 20);
    let mut upload = directory.begin_image(&spec).await.unwrap();
    upload.write(vec![7; 1000].into()).await.unwrap();
    assert_eq!(place.files().len(), 1);
    drop(upload);
    assert_eq!(place.files(), Vec::<String>::new());
}

#[tokio::test]
async fn an_image_is_there_with_both_its_record_and_its_bytes() {
    let place = Place::new();
    let directory = place.open().unwrap();
    let spec = image_spec(4096);
    let image = Image { spec, virtual_size_bytes: 4096, owner: owner() };
    let mut upload = directory.begin_image(&spec).await.unwrap();
    upload.write(vec![7; 4096].into()).await.unwrap();
    upload.commit(&image).await.unwrap();
    assert_eq!(directory.find_image(spec.id).await.unwrap(), FoundImage::Whole(image));
    assert_eq!(directory.images().await.unwrap(), [image]);
    let path = directory.pool.image(spec.id, Format::Raw);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);

    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[1..]).unwrap();
    assert!(matches!(directory.find_image(spec.id).await, Err(StorageError::Backend { .. })), "cut off");
    fs::remove_file(&path).unwrap();
    assert_eq!(directory.find_image(spec.id).await.unwrap(), FoundImage::Lost(image));
    fs::write(&path, &bytes).unwrap();
    fs::remove_file(directory.pool.image_record(spec.id)).unwrap();
    assert_eq!(directory.find_image(spec.id).await.unwrap(), FoundImage::Foreign(path.clone()));
    let mut upload = directory.begin_image(&spec).await.unwrap();
    upload.write(bytes.clone().into()).await.unwrap();
    assert!(matches!(upload.commit(&image).await, Err(StorageError::Foreign(_))));
    directory.remove_image(spec.id).await.unwrap();
    assert_eq!(fs::read(path).unwrap(), bytes);
    assert_eq!(place.files().len(), 1);
}

#[test]
fn records_are_written_in_this_form() {
    let id: VolumeId = "550e8400-e29b-41d4-a716-446655440000".parse().unwrap();
    let text = serde_json::to_string_pretty(&record(id, VolumeState::Ready)).unwrap();
    insta::assert_snapshot!(text, @r#"
    {
      "form": 1,
      "id": "550e8400-e29b-41d4-a716-446655440000",
      "owner": {
        "cloud_id": "00000000-0000-0000-0000-000000000000",
        "epoch": 1,
        "version": 2,
        "incarnation": null
      },
      "state": "ready",
      "source": {
        "kind": "blank"
      },
      "created_size_bytes": 1048576,
      "pool": "default"
    }
    "#);
}

fn uuids<T: From<Uuid> + std::fmt::Debug>() -> impl Strategy<Value = T> {
    any::<u128>().prop_map(|bits| T::from(Uuid::from_u128(bits)))
}

fn owners() -> impl Strategy<Value = Owner> {
    (uuids(), any::<(u64, u64)>(), proptest::option::of(uuids()))
        .prop_map(|(cloud_id, (epoch, version), incarnation)| Owner { cloud_id, epoch, version, incarnation })
}

fn round_trip<R: record::Record + PartialEq + std::fmt::Debug>(record: &R, dir: &Path) {
    let path = dir.join("record.json");
    record.write(&path).unwrap();
    assert_eq!(R::read(&path, record.id()).unwrap().as_ref(), Some(record));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn volume_records_survive_the_disk(
        id in uuids(), owner in owners(), image in proptest::option::of(uuids()), size in any::<u64>(),
        pool in "[a-z][a-z0-9]{0,30}", state in 0..3_usize,
    ) {
        let state = [VolumeState::Creating, VolumeState::Ready, VolumeState::Removing][state];
        let source = image.map_or(Source::Blank, |image_id| Source::Image { image_id });
        let pool = pool.parse().unwrap();
        let record = VolumeRecord { form: RECORD_FORM, id, owner, state, source, created_size_bytes: size, pool, base: None };
        round_trip(&record, TempDir::new().unwrap().path());
    }

    #[test]
    fn image_records_survive_the_disk(
        id in uuids(), owner in owners(), sizes in any::<(u64, u64)>(), digest in any::<[u8; 32]>(), raw in any::<bool>(),
    ) {
        let format = if raw { Format::Raw } else { Format::Qcow2 };
        let (size_bytes, virtual_size_bytes) = sizes;
        let sha256 = Sha256::from(digest);
        let record = ImageRecord { form: RECORD_FORM, id, owner, format, size_bytes, sha256, virtual_size_bytes };
        round_trip(&record, TempDir::new().unwrap().path());
    }
}
