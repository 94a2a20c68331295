//! A randomized test of the whole cloud against a model of what may be answered.
//!
//! # Theory of operation
//!
//! Several clients make random calls to one or two gateways (real processes) with twenty simulated hosts, for half a minute, under a few names
//! that they fight for. Meanwhile gateways are killed, and stopped as a debugger stops them; the database is shut down, crashed, frozen and
//! cut off; agents are killed, fall silent or lose their answers; hosts lose their network or power. All of it is planned from one seed
//! ([`plan`]), which is printed: `CLOUD_CHAOS_SEED=… CLOUD_CHAOS_SECONDS=…` makes the same calls and faults again. (The processes' timing is
//! their own, so it may take several runs to meet a race again.)
//!
//! Every call is written down with its time and its outcome ([`history`]); "no answer" means "may have happened, or may still". Then everything
//! is mended, and must become as intended: what the API says against what the hosts have ([`hosts`]), within a deadline. At last the history
//! is judged ([`check`]), and the database is read directly ([`rows`]).
//!
//! The checker is tested itself, with histories that are wrong in one way each.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod check;
mod client;
mod cloud;
mod history;
mod hosts;
mod launches;
mod lives;
mod nemesis;
mod plan;
mod proxy;
mod rows;
mod run;
mod seen;
mod wrong_histories;

use cloud::Engine;

#[tokio::test(flavor = "multi_thread")]
async fn one_gateway_on_sqlite() -> anyhow::Result<()> {
    run::run(Engine::Sqlite, 1).await
}

#[tokio::test(flavor = "multi_thread")]
async fn one_gateway_on_postgresql() -> anyhow::Result<()> {
    run::run(Engine::Postgres, 1).await
}

#[tokio::test(flavor = "multi_thread")]
async fn two_gateways_on_postgresql() -> anyhow::Result<()> {
    run::run(Engine::Postgres, 2).await
}
