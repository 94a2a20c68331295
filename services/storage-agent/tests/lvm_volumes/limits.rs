use std::process::Stdio;

use tempfile::TempDir;
use tonic::Code;
use uuid::Uuid;

use crate::{
    agent::{Agent, MIB, blank, reads, reason, run, writes},
    gateway::PATIENCE,
    group::{Pool, lvs, name},
};

#[tokio::test]
async fn beyond_the_limits_nothing_is_made_grown_or_taken() {
    let pool = Pool::start_with("64m", &["--pool-virtual-ratio", "1"]).await;
    // What the group can add counts, so the ratio is of that too.
    let free: u64 =
        String::from_utf8(run("vgs", &["--noheadings", "--units", "m", "--nosuffix", "-o", "vg_free", &name()]).stdout)
            .unwrap()
            .trim()
            .split('.')
            .next()
            .unwrap()
            .parse()
            .unwrap();
    let spec = blank(free + 32);
    pool.agent.ensure(&spec, true).await.unwrap();
    let refused = pool.agent.ensure(&blank(64), true).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.message().contains("its volumes promise"), "{}", refused.message());
    assert_eq!(reason(pool.agent.resize(&spec.id, (free + 128) * MIB).await), "POOL_LIMIT");
    assert_eq!(reason(pool.agent.snapshot(&Uuid::new_v4().to_string(), &spec.id, true).await), "POOL_LIMIT");
    pool.agent.ensure(&spec, false).await.unwrap();
}

#[tokio::test]
async fn the_pool_is_extended_while_the_group_has_room() {
    let pool = Pool::start_with("64m", &[]).await;
    let size = || lvs("lv_size", &pool.full(&pool.name))[0].parse::<u64>().unwrap();
    let before = size();
    let volume = pool.agent.ensure(&blank(128), true).await.unwrap();
    writes(&volume, "0x11", "0 52M");
    let grown = async {
        while size() == before {
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(PATIENCE, grown).await.expect("extended in time");
    let beat = pool
        .agent
        .gateway
        .hears(|beat| {
            beat.capacity
                .as_ref()
                .and_then(|c| c.storage.as_ref())
                .is_some_and(|s| s.pools[0].virtual_bytes == 128 * MIB && s.pools[0].data_permille > 0)
        })
        .await;
    let told = beat.capacity.unwrap().storage.unwrap().pools.remove(0);
    assert!(told.total_bytes >= size() && told.data_permille > 0 && told.metadata_permille > 0, "{told:?}");
    assert!(reads(&volume, "0x11", "0 52M"));
}

/// What an agent says that does not start.
async fn refusal(pool: &str, state: &TempDir) -> String {
    let flags = ["--pool", &format!("default=lvm:{}/{pool}", name())].map(ToOwned::to_owned);
    let refused = Agent::command(state.path()).args(flags).stderr(Stdio::piped()).output().await.unwrap();
    assert!(!refused.status.success());
    String::from_utf8(refused.stderr).unwrap()
}

#[tokio::test]
async fn a_pool_that_cannot_be_trusted_is_refused_with_what_to_do() {
    let state = TempDir::new().unwrap();
    let pool = format!("bad-{}", &Uuid::new_v4().simple().to_string()[..8]);
    let full = format!("{}/{pool}", name());
    run("lvcreate", &["--yes", "--quiet", "--type", "thin-pool", "-n", &pool, "-L", "32m", "-Zn", &name()]);
    let said = refusal(&pool, &state).await;
    assert!(said.contains("does not zero"), "{said}");
    run("lvremove", &["--yes", "--quiet", &full]);
    run("lvcreate", &["--yes", "--quiet", "-Wn", "-n", &pool, "-L", "32m", &name()]);
    let said = refusal(&pool, &state).await;
    assert!(said.contains("is no thin pool"), "{said}");
    run("lvremove", &["--yes", "--quiet", &full]);
    let flags = ["--pool", "default=lvm:no-such-group/thin"];
    let refused = Agent::command(state.path()).args(flags).stderr(Stdio::piped()).output().await.unwrap();
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains("vgcreate no-such-group"), "{said}");
}

#[tokio::test]
async fn another_pool_under_the_same_name_is_not_taken_for_the_one_that_was_there() {
    let mut pool = Pool::start_with("64m", &[]).await;
    let spec = blank(8);
    pool.agent.ensure(&spec, true).await.unwrap();
    let away = format!("{}-away", pool.name);
    run("lvrename", &[&name(), &pool.name, &away]);
    for may_create in [false, true] {
        assert_eq!(reason(pool.agent.ensure(&spec, may_create).await), "POOL_NOT_HEALTHY");
    }
    run("lvcreate", &["--yes", "--quiet", "--type", "thin-pool", "-n", &pool.name, "-L", "32m", "-Zy", &name()]);
    assert_eq!(reason(pool.agent.ensure(&spec, true).await), "POOL_NOT_HEALTHY");
    let beat = pool.agent.gateway.hears(|beat| !beat.backend_healthy).await;
    assert!(beat.backend_error.contains("not healthy"), "{}", beat.backend_error);
    run("lvremove", &["--yes", "--quiet", &pool.full(&pool.name)]);
    run("lvrename", &[&name(), &away, &pool.name]);
    pool.agent.gateway.hears(|beat| beat.backend_healthy).await;
    pool.agent.ensure(&spec, false).await.unwrap();
    pool.agent.kill().await;
    pool.agent.run().await;
    pool.agent.ensure(&spec, false).await.unwrap();
}
