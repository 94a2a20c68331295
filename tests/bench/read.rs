//! (b) GetInstance, authenticated, over gRPC and REST, against bare handlers that do the same database read and answer the same bytes.

use std::time::Duration;

use anyhow::Context as _;
use cloud_contracts::v1::{GetInstanceRequest, instance_service_client::InstanceServiceClient};
use cloud_testkit::grpc::Service;
use cloud_tests::TestCloud;
use prost::Message as _;
use tonic::transport::Endpoint;

use crate::{
    bare::{BareProcess, Kind},
    load::{CLIENTS, Http, Outcome, Turns, drive},
    table::{Table, median},
};

/// The part of the bare handler's throughput that is required.
const BUDGET: f64 = 0.7;
/// Before anything is measured, each side answers for this long.
const WARM_UP: Duration = Duration::from_millis(500);

/// Measures both protocols.
pub async fn measure(table: &mut Table, turns: Turns) -> anyhow::Result<()> {
    let cloud = TestCloud::start().await?;
    let id = cloud.running("bench").await?["id"].as_str().context("an id")?.to_owned();
    rest(table, turns, &cloud, &id).await?;
    grpc(table, turns, &cloud, &id).await
}

async fn rest(table: &mut Table, turns: Turns, cloud: &TestCloud, id: &str) -> anyhow::Result<()> {
    let path = format!("/instances/{id}");
    let answer = cloud.rest.get(&path).await?;
    let key = cloud.gateway.key()?;
    let database = cloud.dir.path().join("cloud.db");
    let bare = BareProcess::start(&cloud.dir, Kind::Axum, &database, id, &answer.body).await?;
    let echo = BareProcess::start(&cloud.dir, Kind::AxumEcho, &database, id, &answer.body).await?;
    let mut sides = Sides::default();
    for round in 0..=turns.rounds {
        let time = if round == 0 { WARM_UP } else { turns.time };
        for (side, port) in [(0, cloud.gateway.port()), (1, bare.port), (2, echo.port)] {
            let outcome = drive(Http::connect(port, &path, &key).await?, time, Http::call).await?;
            sides.add(round, side, &outcome);
        }
    }
    sides.report(table, "REST GetInstance", "a bare axum handler");
    Ok(())
}

/// A gRPC client that asks for one instance again and again.
struct Grpc {
    client: InstanceServiceClient<Service>,
    id: String,
}

impl Grpc {
    /// [`CLIENTS`] clients over a quarter as many connections.
    fn connect(port: u16, key: &str, id: &str) -> anyhow::Result<Vec<Self>> {
        let mut clients = Vec::with_capacity(CLIENTS);
        for _ in 0..CLIENTS / 4 {
            let channel = Endpoint::try_from(format!("http://127.0.0.1:{port}"))?.connect_lazy();
            let grpc = cloud_testkit::GrpcClient::new(channel, key)?;
            let client = || Self { client: InstanceServiceClient::new(grpc.service()), id: id.to_owned() };
            clients.extend(std::iter::repeat_with(client).take(4));
        }
        Ok(clients)
    }

    async fn call(mut self) -> anyhow::Result<Self> {
        let request = GetInstanceRequest { id: self.id.clone() };
        let answer = self.client.get_instance(request).await?;
        anyhow::ensure!(answer.get_ref().id == self.id, "another instance was answered");
        Ok(self)
    }
}

async fn grpc(table: &mut Table, turns: Turns, cloud: &TestCloud, id: &str) -> anyhow::Result<()> {
    let key = cloud.gateway.key()?;
    let mut client = InstanceServiceClient::new(cloud.gateway.grpc()?.service());
    let answer = client.get_instance(GetInstanceRequest { id: id.to_owned() }).await?.into_inner().encode_to_vec();
    let database = cloud.dir.path().join("cloud.db");
    let bare = BareProcess::start(&cloud.dir, Kind::Tonic, &database, id, &answer).await?;
    let echo = BareProcess::start(&cloud.dir, Kind::TonicEcho, &database, id, &answer).await?;
    let mut sides = Sides::default();
    for round in 0..=turns.rounds {
        let time = if round == 0 { WARM_UP } else { turns.time };
        for (side, port) in [(0, cloud.gateway.port()), (1, bare.port), (2, echo.port)] {
            let outcome = drive(Grpc::connect(port, &key, id)?, time, Grpc::call).await?;
            sides.add(round, side, &outcome);
        }
    }
    sides.report(table, "gRPC GetInstance", "a bare tonic handler");
    Ok(())
}

/// The gateway, the bare handler and the echo, turn by turn.
#[derive(Debug, Default)]
struct Sides {
    per_second: [Vec<f64>; 3],
    p99_ms: Vec<f64>,
}

impl Sides {
    /// Round 0 warms up and does not count.
    fn add(&mut self, round: usize, side: usize, outcome: &Outcome) {
        if round == 0 {
            return;
        }
        self.per_second[side].push(outcome.per_second);
        if side == 0 {
            #[allow(clippy::cast_precision_loss, reason = "microseconds of one call")]
            self.p99_ms.push(outcome.latency.value_at_quantile(0.99) as f64 / 1000.0);
        }
    }

    /// The ratio is the median of the turns' ratios: both sides of a turn met the same machine.
    fn report(self, table: &mut Table, what: &str, bare: &str) {
        let [gateway, handler, echo] = &self.per_second;
        let ratio = |to: &[f64]| median(gateway.iter().zip(to).map(|(a, b)| a / b).collect());
        let rate = |of: &[f64]| format!("{:.0}/s", median(of.to_vec()));
        let (to_bare, to_echo) = (ratio(handler), ratio(echo));
        table.note(&format!("(b) {what}"), format!("{}, p99 {:.1} ms", rate(gateway), median(self.p99_ms.clone())));
        table.note(&format!("    {bare}, the same read and bytes"), rate(handler));
        table.judged(
            "    throughput against it",
            format!("{to_bare:.2}"),
            &format!("at least {BUDGET}"),
            to_bare >= BUDGET,
        );
        table.note("    throughput against a plain echo", format!("{to_echo:.2} of {}", rate(echo)));
    }
}
