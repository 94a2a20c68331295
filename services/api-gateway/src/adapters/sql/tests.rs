use cloud_core::{
    filter::{Filter, Order},
    model::{Image, Instance, Resource, Volume, Vpc},
    ports::{Query, Store as _, Tx as _},
};
use cloud_domain::ProjectId;

use super::{SqlStore, engine::statement, rows};

/// What SQLite means to do for a query.
async fn plan<R: Resource>(store: &SqlStore, query: &Query) -> String {
    let (sql, values) = rows::select(store.inner.dialect, R::TABLE, query);
    let sql = format!("EXPLAIN QUERY PLAN {sql}");
    let statement = values.into_iter().fold(statement(sql), rows::bind);
    let steps = statement.fetch_all(&mut store.inner.readers.acquire().await.unwrap()).await.unwrap();
    steps.iter().map(|step| step.try_get::<String>(3).unwrap()).collect::<Vec<_>>().join("\n")
}

fn query<R: Resource>(filter: &str, order: &str) -> Query {
    Query {
        project: Some(ProjectId::random()),
        filter: Filter::parse(R::FIELDS, filter).unwrap(),
        order: Order::parse(order).unwrap(),
        limit: Some(51),
        ..Query::default()
    }
}

async fn sorts_nothing<R: Resource>(store: &SqlStore, filter: &str, order: &str) {
    for deleted in [false, true] {
        let plan = plan::<R>(store, &Query { deleted, ..query::<R>(filter, order) }).await;
        let table = format!("SCAN {}", R::TABLE);
        // A last part that is sorted is rows of one name.
        let sorts = plan.contains("TEMP B-TREE FOR ORDER BY");
        assert!(!sorts && !plan.contains(&table), "{} `{filter}` by `{order}`: {plan}", R::TABLE);
    }
}

#[tokio::test]
async fn pages_are_read_by_an_index() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqlStore::open(&format!("sqlite:{}", dir.path().join("c.db").display())).await.unwrap();
    for order in ["", "created_at desc", "name", "name desc"] {
        for filter in ["", "labels.tier=web"] {
            sorts_nothing::<Instance>(&store, filter, order).await;
            sorts_nothing::<Volume>(&store, filter, order).await;
            sorts_nothing::<Vpc>(&store, filter, order).await;
        }
    }
    for order in ["name", "name desc"] {
        sorts_nothing::<Instance>(&store, "name~web-*", order).await;
    }
    for order in ["", "created_at desc"] {
        for filter in ["status=RUNNING", "host=h1"] {
            sorts_nothing::<Instance>(&store, filter, order).await;
        }
    }
    let status = plan::<Instance>(&store, &query::<Instance>("status=ERROR", "")).await;
    assert!(status.contains("instances_by_status"), "{status}");
    // The caller's own images and the public ones: a page of each, and only these are merged.
    let both = Query { or_column: Some(("public", 1)), ..query::<Image>("", "") };
    let both = plan::<Image>(&store, &both).await;
    assert!(both.contains("images_page") && both.contains("images_public_page"), "{both}");
}

async fn write(store: &SqlStore, times: usize) {
    for _ in 0..times {
        let mut tx = store.begin().await.unwrap();
        tx.next_vni().await.unwrap();
        tx.commit().await.unwrap();
    }
}

/// How many pages the log has.
async fn log(store: &SqlStore) -> i64 {
    let mut connection = store.inner.readers.acquire().await.unwrap();
    let row = statement("PRAGMA wal_checkpoint(PASSIVE)").fetch_one(&mut connection).await.unwrap();
    row.try_get(1).unwrap()
}

#[tokio::test]
async fn the_log_is_copied_beside_the_commits_and_begins_anew() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("c.db");
    let store = SqlStore::open(&format!("sqlite:{}", file.display())).await.unwrap();
    let copied = || std::fs::metadata(&file).unwrap().modified().unwrap();
    let (at_first, begun) = (copied(), std::time::Instant::now());
    while copied() == at_first {
        assert!(begun.elapsed() < std::time::Duration::from_secs(20), "nothing was copied");
        write(&store, 20).await;
    }
    write(&store, 200).await;
    let before = log(&store).await;
    super::checkpoint::finish(&store.inner.writers).await.unwrap();
    write(&store, 1).await;
    let after = log(&store).await;
    assert!(after < before && before > 20, "{before} pages, then {after}");
    store.close().await;
    let left = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    assert!(!left.into_iter().any(|name| name.ends_with("-wal")), "closing leaves no log");
}
