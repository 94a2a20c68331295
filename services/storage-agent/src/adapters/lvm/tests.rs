use cloud_domain::{CloudId, Incarnation, Mib};
use proptest::prelude::*;
use uuid::Uuid;

use super::{
    extend::{Step, step},
    tags::{Tags, What},
    *,
};
use crate::core::model::{Format, Sha256, Source};

fn place() -> LvmPlace {
    "vg0/thin".parse().unwrap()
}

fn owner() -> Owner {
    Owner { cloud_id: CloudId::from(Uuid::nil()), epoch: 1, version: 2, incarnation: None }
}

fn id<T: From<Uuid>>(number: u128) -> T {
    T::from(Uuid::from_u128(number))
}

fn blank() -> VolumeSpec {
    let (size, pool) = (Mib::try_from(2048).unwrap(), "default".parse().unwrap());
    VolumeSpec { id: id(7), size, source: Source::Blank, pool }
}

#[test]
fn argument_vectors() {
    let (place, size) = (place(), blank().size);
    let tags = Tags::volume(&blank(), &owner());
    let copied = VolumeSpec { source: Source::Snapshot { snapshot_id: id(9) }, ..blank() };
    let snapshot = SnapshotSpec { id: id(9), volume: id(7), pool: "default".parse().unwrap() };
    let vectors = [
        commands::report(&place),
        commands::group(&place),
        commands::create_pool(&place, 1000, 8 << 20, 64),
        commands::create_blank(&place, "vol-7", size, &tags),
        commands::create_copy(&place, "vol-7", "snap-9", &Tags::volume(&copied, &owner())),
        commands::create_snapshot(&place, "snap-9", "vol-7", &Tags::snapshot(&snapshot, &owner())),
        commands::extend(&place, "vol-7", size),
        commands::extend_pool(&place, 5),
        commands::extend_metadata(&place, 4 << 20),
        commands::remove(&place, "vol-7"),
        commands::activate(&place, "vol-7"),
        commands::deactivate(&place, "img-3"),
        commands::finish_image(&place, "img-3"),
    ];
    insta::assert_snapshot!(vectors.map(|command| command.to_string()).join("\n"));
}

fn uuids<T: From<Uuid> + std::fmt::Debug>() -> impl Strategy<Value = T> {
    any::<u128>().prop_map(|bits| T::from(Uuid::from_u128(bits)))
}

fn sources() -> impl Strategy<Value = Source> {
    prop_oneof![
        Just(Source::Blank),
        uuids().prop_map(|image_id| Source::Image { image_id }),
        uuids().prop_map(|snapshot_id| Source::Snapshot { snapshot_id }),
        uuids().prop_map(|volume_id| Source::Volume { volume_id }),
    ]
}

fn whats() -> impl Strategy<Value = What> {
    let image = (any::<bool>(), any::<(u64, u64)>(), any::<[u8; 32]>(), any::<bool>());
    prop_oneof![
        (sources(), any::<u64>()).prop_map(|(source, created_size_bytes)| What::Volume { source, created_size_bytes }),
        uuids().prop_map(|volume| What::Snapshot { volume }),
        image.prop_map(|(raw, (size_bytes, virtual_size_bytes), digest, creating)| What::Image {
            format: if raw { Format::Raw } else { Format::Qcow2 },
            size_bytes,
            sha256: Sha256::from(digest),
            virtual_size_bytes,
            creating,
        }),
    ]
}

proptest! {
    #[test]
    fn tags_say_what_they_were_made_of_in_any_order(
        id in any::<u128>(), cloud in uuids(), order in any::<(u64, u64)>(),
        incarnation in proptest::option::of(uuids::<Incarnation>()), what in whats(), turn in 0..6_usize,
    ) {
        let owner = Owner { cloud_id: cloud, epoch: order.0, version: order.1, incarnation };
        let tags = Tags { id: Uuid::from_u128(id), owner, what };
        let mut written = written(&tags);
        let turn = turn % written.len();
        written.rotate_left(turn);
        written.insert(0, "backup".to_owned());
        prop_assert_eq!(Tags::read(&written.join(",")).unwrap().unwrap(), tags);
    }
}

/// The tags, each one that LVM takes.
fn written(tags: &Tags) -> Vec<String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_+.-/=!:#&".contains(c);
    let written = tags.write();
    for tag in &written {
        assert!(tag.len() <= 1024 && !tag.starts_with('-') && tag.chars().all(allowed), "{tag}");
    }
    written
}

#[test]
fn tags_of_others_and_damaged_ones_are_told_apart() {
    assert_eq!(Tags::read("").unwrap(), None);
    assert_eq!(Tags::read("backup,cloudy.id=1").unwrap(), None);
    let good = written(&Tags::volume(&blank(), &owner()));
    for drop in 1..good.len() {
        let mut tags = good.clone();
        tags.remove(drop);
        assert!(Tags::read(&tags.join(",")).is_err(), "{tags:?}");
    }
    for wrong in ["cloud.order=1", "cloud.order=a.b", "cloud.size=-1", "cloud.volume=x", "cloud.source=tape:1"] {
        let name = wrong.split_once('=').unwrap().0;
        let mut tags: Vec<_> = good.iter().filter(|tag| !tag.starts_with(name)).cloned().collect();
        tags.push(wrong.to_owned());
        assert!(Tags::read(&tags.join(",")).is_err(), "{wrong}");
    }
}

/// A row of `lvs`, with what is the same in all of them.
fn row(name: &str, attr: &str, size: u64, pool: &str, tags: &str, percents: (&str, &str)) -> serde_json::Value {
    serde_json::json!({
        "lv_name": name, "lv_uuid": format!("uuid-of-{name}"), "lv_size": size.to_string(), "lv_attr": attr,
        "lv_tags": tags, "pool_lv": pool, "data_percent": percents.0, "metadata_percent": percents.1,
        "lv_metadata_size": if attr.starts_with('t') { "33554432" } else { "" }, "vg_uuid": "uuid-of-vg0",
        "vg_extent_size": "4194304", "vg_free_count": "10", "zero": if attr.starts_with('t') { "zero" } else { "" },
    })
}

fn report(rows: &[serde_json::Value]) -> Report {
    let json = serde_json::json!({"report": [{"lv": rows}], "log": []});
    Report::parse(json.to_string().as_bytes()).unwrap()
}

const GIB: u64 = 1 << 30;

#[test]
fn a_report_says_how_full_the_pool_is_and_what_its_volumes_promise() {
    let rows = [
        row("thin", "twi-aotz--", GIB, "", "", ("12.34", "1.01")),
        row("vol-1", "Vwi-a-tz--", 2 * GIB, "thin", "", ("50.00", "")),
        row("snap-1", "Vri---tz-k", 2 * GIB, "thin", "", ("", "")),
        row("other", "-wi-a-----", 7 * GIB, "", "", ("", "")),
    ];
    let report = report(&rows);
    let pool = report.pool(&place()).unwrap();
    assert_eq!((pool.data_permille, pool.metadata_permille), (Some(124), Some(11)), "rounded up");
    assert_eq!(report.get("vol-1").unwrap().allocated(), GIB);
    assert!(report.get("vol-1").unwrap().is_active() && !report.get("snap-1").unwrap().is_active());
    let thin = report.thin(&place());
    assert_eq!((thin.virtual_bytes, thin.metadata_permille), (4 * GIB, 11));
    assert_eq!(thin.data_permille, 119, "of what the pool has and the group can add");
    assert_eq!(pool.what_is_wrong(), None);
}

#[test]
fn a_pool_that_cannot_be_relied_on_says_why() {
    for (attr, word) in [
        ("twi-aotzF-", "damaged"),
        ("twi-aotzM-", "read only"),
        ("twi---tz--", "not active"),
        ("twi-aotzp-", "missing"),
    ] {
        let report = report(&[row("thin", attr, GIB, "", "", ("1.00", "1.00"))]);
        let wrong = report.pool(&place()).unwrap().what_is_wrong().unwrap();
        assert!(wrong.contains(word), "{attr}: {wrong}");
    }
}

#[test]
fn the_pool_is_extended_where_it_gets_full_and_only_by_what_the_group_has() {
    let extent = 4 << 20;
    let asked = |data, metadata| step(&report(&[row("thin", "twi-aotz--", GIB, "", "", (data, metadata))]), &place());
    assert_eq!(asked("74.90", "74.00"), Step { extents: 0, metadata: 0 });
    assert_eq!(asked("75.00", "10.00"), Step { extents: 10, metadata: 0 }, "a fifth would be 52, the group has 10");
    assert_eq!(asked("10.00", "80.00"), Step { extents: 0, metadata: 2 * extent });
    assert_eq!(asked("90.00", "80.00"), Step { extents: 6, metadata: 2 * extent }, "the spare copy counts");
}

#[test]
fn a_new_pool_leaves_room_for_what_is_extended() {
    assert_eq!(open::shape(15, 4 << 20), None);
    for gib in [1_u64, 10, 100, 10_000, 100_000] {
        let extents = gib * 256;
        let (data, metadata, chunk) = open::shape(extents, 4 << 20).unwrap();
        let taken = data * (4 << 20) + 2 * metadata;
        assert!(taken <= gib * GIB * 4 / 5 && taken > gib * GIB * 3 / 4, "{gib}: {taken}");
        assert!(metadata <= 15 << 30 && metadata.is_multiple_of(4 << 20), "{gib}");
        assert!(data * (4 << 20) / (u64::from(chunk) << 10) * 64 <= metadata, "{gib}: metadata for every chunk");
    }
}

#[test]
fn only_our_own_suspended_devices_are_resumed() {
    let listed = "vg0-thin-tpool:Suspended\nvg0-vol--7:Suspended\nvg0-snap--9:Active\nvg0-home:Suspended\nvg0--x-vol--7:Suspended\nvg0-thin2:Suspended\n";
    assert_eq!(open::suspended(listed, &place()), ["vg0-thin-tpool", "vg0-vol--7"]);
    let other = "vg-a/my-pool".parse().unwrap();
    assert_eq!(
        open::suspended("vg--a-my--pool_tdata:Suspended\nvg--a-vol--1:Active", &other),
        ["vg--a-my--pool_tdata"]
    );
}
