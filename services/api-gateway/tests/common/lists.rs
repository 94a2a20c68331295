//! Filters and orders: what SQL answers is what the core says of each row.

use cloud_core::{
    CoreError,
    filter::{Field, FieldKind, Filter, Op, Term},
    model::{Caller, Meta, Resource, Volume, VolumeLimits, VolumeStatus},
    ports::{EventQuery, Query, Store, Tx},
    services::{EventFilter, PageRequest},
};
use cloud_domain::{Gib, InstanceId, ProjectId};
use proptest::{
    prelude::*,
    strategy::ValueTree,
    test_runner::{Config, TestRunner},
};

use super::Cloud;

/// Texts that mean something to SQL, to LIKE, to GLOB, to JSON paths or to nobody.
const TEXTS: [&str; 14] =
    ["", "web", "Web", "web-1", "a_b", "a%b", "[a]", "a?b", "\\", "'", "\"x\"", "$.a", "ä", "a b"];
const KEYS: [&str; 6] = ["tier", "Tier", "a.b", "\"q\"", "$", "none"];

fn project() -> ProjectId {
    ProjectId::from(uuid::Uuid::from_u128(7))
}

fn row(i: usize) -> Volume {
    let text = |n: usize| TEXTS[n % TEXTS.len()].to_owned();
    let labels = KEYS.iter().take(5).enumerate().filter(|(k, _)| !(i + k).is_multiple_of(3));
    let labels = labels.map(|(k, key)| ((*key).to_owned(), text(i + k))).collect();
    let statuses = [VolumeStatus::Available, VolumeStatus::InUse, VolumeStatus::Error];
    let instance = i.is_multiple_of(2).then(InstanceId::random);
    let mut meta = Meta::new(uuid::Uuid::new_v4(), project(), "seven", &format!("v-{:02}", (i * 7) % 40), labels);
    // Several of one moment: their ids tell them apart.
    meta.created_at.0 += i as i64 / 3;
    Volume {
        meta,
        size: Gib::try_from(1 + i as u64 % 11).unwrap(),
        status: statuses[i % 3],
        status_reason: String::new(),
        host: None,
        host_name: text(i / 2),
        pool: text(i / 3),
        instance,
        instance_name: text(i + 5),
        root: i.is_multiple_of(4),
        image: None,
        image_name: text(i),
        data_missing: false,
        copied: None,
        growing_to: None,
        limits: VolumeLimits { iops: u32::try_from(i % 3).unwrap(), mb_per_second: 0 },
        limits_pending: i.is_multiple_of(5),
    }
}

fn term() -> impl Strategy<Value = Term> {
    let fields = Volume::FIELDS;
    let text = prop_oneof![
        prop::sample::select(TEXTS.to_vec()).prop_map(str::to_owned),
        prop::sample::select(TEXTS.to_vec()).prop_map(|t| format!("{t}*")),
        prop::sample::select(TEXTS.to_vec()).prop_map(|t| format!("*{t}")),
        "[web1_%?*a-]{0,5}",
        "v-[0-3]\\*?",
    ];
    let op = prop_oneof![Just(Op::Is), Just(Op::IsNot), Just(Op::Like)];
    (0..fields.len(), prop::sample::select(KEYS.to_vec()), op, text, 0_u64..14).prop_map(
        move |(i, key, op, text, n)| {
            let field: &'static Field = &fields[i];
            let any = matches!(field.kind, FieldKind::Text | FieldKind::Labels);
            let op = if any || op != Op::Like { op } else { Op::Is };
            let value = match field.kind {
                FieldKind::Text | FieldKind::Labels => text,
                FieldKind::Whole => n.to_string(),
                FieldKind::Flag => (n % 2 == 0).to_string(),
                FieldKind::Word(words) => words[usize::try_from(n).unwrap() % words.len()].1.to_owned(),
            };
            Term { field, key: (field.kind == FieldKind::Labels).then(|| key.to_owned()), op, value }
        },
    )
}

pub async fn all(c: &Cloud) {
    let rows: Vec<Volume> = (0..40).map(row).collect();
    let mut tx = c.store.begin().await.unwrap();
    for row in &rows {
        tx.insert(row).await.unwrap();
    }
    tx.commit().await.unwrap();
    sql_and_the_core_agree(c, &rows).await;
    pages_go_on_where_they_ended_in_every_order(c).await;
    public_rows_are_merged_in_order(c).await;
    events_are_filtered(c).await;
}

async fn sql_and_the_core_agree(c: &Cloud, rows: &[Volume]) {
    let mut runner = TestRunner::new_with_rng(
        Config::default(),
        proptest::test_runner::TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha),
    );
    let filters = prop::collection::vec(term(), 1..4);
    let (mut some, mut none) = (0, 0);
    for _ in 0..300 {
        let filter = Filter::of(filters.new_tree(&mut runner).unwrap().current());
        let query = Query { project: Some(project()), filter: filter.clone(), ..Query::default() };
        let mut found: Vec<_> = c.store.list::<Volume>(&query).await.unwrap();
        let mut meant: Vec<_> = rows.iter().filter(|row| filter.matches(*row)).cloned().collect();
        found.sort_by_key(|r| r.meta.id);
        meant.sort_by_key(|r| r.meta.id);
        assert_eq!(found, meant, "{filter}");
        if meant.is_empty() { none += 1 } else { some += 1 }
    }
    assert!(some > 50 && none > 50, "{some} filters found something, {none} nothing");
}

async fn pages_go_on_where_they_ended_in_every_order(c: &Cloud) {
    let caller = Caller { project: project(), ..c.caller.clone() };
    let list = async |page: &PageRequest| c.services.volumes.list(&caller, page).await;
    for order in ["", "created_at desc", "name", "name desc"] {
        let mut page =
            PageRequest { size: 7, filter: "status!=ERROR".into(), order_by: order.into(), ..PageRequest::default() };
        let mut seen: Vec<Volume> = Vec::new();
        loop {
            let found = list(&page).await.unwrap();
            seen.extend(found.rows);
            if found.next.is_empty() {
                break;
            }
            page.token = found.next;
            // Nothing of it means anything in another list.
            for other in [
                PageRequest { filter: String::new(), ..page.clone() },
                PageRequest { order_by: "name asc".into(), ..page.clone() },
                PageRequest { show_deleted: true, ..page.clone() },
            ] {
                if order == "name" && other.order_by == "name asc" {
                    continue;
                }
                let error = list(&other).await.unwrap_err();
                assert!(
                    matches!(&error, CoreError::Invalid { field: "page_token", message } if message.contains("another")),
                    "{error}"
                );
            }
        }
        assert_eq!(seen.len(), 27, "{order}: every row once");
        let key = |v: &Volume| {
            if order.starts_with("name") {
                (0, v.meta.name.clone(), v.meta.id)
            } else {
                (v.meta.created_at.0, String::new(), v.meta.id)
            }
        };
        let mut sorted = seen.clone();
        sorted.sort_by_key(key);
        if order.ends_with("desc") {
            sorted.reverse();
        }
        assert_eq!(seen.iter().map(key).collect::<Vec<_>>(), sorted.iter().map(key).collect::<Vec<_>>(), "{order}");
    }
    for (page, field) in [
        (PageRequest { filter: "colour=red".into(), ..PageRequest::default() }, "filter"),
        (PageRequest { order_by: "colour".into(), ..PageRequest::default() }, "order_by"),
        (PageRequest { token: "c.x.y".into(), ..PageRequest::default() }, "page_token"),
    ] {
        let error = list(&page).await.unwrap_err();
        assert!(matches!(&error, CoreError::Invalid { field: named, .. } if *named == field), "{error}");
    }
}

/// The two halves of a list of images, the project's own and the public ones, come as one list.
async fn public_rows_are_merged_in_order(c: &Cloud) {
    let query = Query { project: Some(project()), or_column: Some(("public", 1)), limit: Some(1), ..Query::default() };
    let found: Vec<cloud_core::model::Image> = c.store.list(&query).await.unwrap();
    assert_eq!(
        found.iter().map(|i| i.meta.name.as_str()).collect::<Vec<_>>(),
        ["tiny"],
        "another project's public one"
    );
    let own = Query { project: Some(c.caller.project), ..query };
    assert_eq!(c.store.list::<cloud_core::model::Image>(&own).await.unwrap(), found, "once, where it is both");
}

async fn events_are_filtered(c: &Cloud) {
    let everything = EventQuery { project: Some(c.caller.project), limit: 500, ..EventQuery::default() };
    let everything = c.store.list_events(&everything).await.unwrap();
    for filter in ["action=instance.launch", "kind!=instance actor=admin", "resource_name~web-*", "action~*.create"] {
        let page = PageRequest { filter: filter.into(), size: 500, ..PageRequest::default() };
        let found = c.services.events.list(&c.caller, &EventFilter::default(), &page).await.unwrap().rows;
        let parsed = Filter::parse(cloud_core::filter::EVENT, filter).unwrap();
        let meant: Vec<_> = everything.iter().filter(|e| parsed.matches_event(e)).cloned().collect();
        assert_eq!(found, meant, "{filter}");
        assert!(!found.is_empty() && found.len() < everything.len(), "{filter}");
    }
    let mut page = PageRequest { order_by: "created_at".into(), size: 3, ..PageRequest::default() };
    let first = c.services.events.list(&c.caller, &EventFilter::default(), &page).await.unwrap();
    page.token = first.next;
    let second = c.services.events.list(&c.caller, &EventFilter::default(), &page).await.unwrap();
    let revisions: Vec<_> = first.rows.iter().chain(&second.rows).map(|e| e.revision).collect();
    assert!(revisions.len() == 6 && revisions.windows(2).all(|w| w[0] < w[1]), "{revisions:?}");
    page.order_by = String::new();
    assert!(c.services.events.list(&c.caller, &EventFilter::default(), &page).await.is_err(), "of another order");
}
