//! Launches at a steady rate, and reads beside them.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use cloud_contracts::v1::{
    CreateVpcRequest, GetInstanceRequest, LaunchInstanceRequest, ListInstancesRequest,
    instance_service_client::InstanceServiceClient, vpc_service_client::VpcServiceClient,
};
use cloud_testkit::{GatewayProcess, GrpcClient, PostgresServer, SimHost};
use hdrhistogram::Histogram;
use rand::Rng as _;
use tokio::{
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
    task::JoinSet,
};
use tonic::transport::Endpoint;

use super::process::{Meters, Shares};
use crate::load::{histogram, micros};

/// Instances of one small tenant: what a launch makes grow is the VPC that it joins.
const IN_VPC: usize = 5;
/// Reads per second beside the launches.
const GETS: u32 = 200;
const LISTS: u32 = 20;
/// How long before the measurement the same load goes on.
const WARM: Duration = Duration::from_secs(3);
/// How long the last launches may take to run.
const DRAIN: Duration = Duration::from_secs(5);

/// How fast something answered.
#[derive(Debug, Clone, Copy)]
pub struct Latency {
    /// The middle.
    pub p50: Duration,
    /// The slowest of a hundred.
    pub p99: Duration,
}

/// What came of it.
#[derive(Debug)]
pub struct Load {
    /// Launches answered, per second.
    pub accepted: f64,
    /// Guests that came to run, per second.
    pub running: f64,
    /// `LaunchInstance`.
    pub launch: Latency,
    /// `GetInstance`.
    pub get: Latency,
    /// `ListInstances`, a page of 50.
    pub list: Latency,
    /// Calls that failed.
    pub failed: usize,
    /// Why the first of them did.
    pub why: Option<String>,
    /// Processor time.
    pub shares: Shares,
}

/// Answers to one kind of call.
#[derive(Debug)]
struct Answers {
    /// Of those that were due in the time that is measured, in microseconds.
    latency: Histogram<u64>,
    /// Errors, at any time.
    failed: usize,
    /// The first of them.
    why: Option<String>,
}

impl Answers {
    fn enter(&mut self, begin: Instant, due: Instant, answer: anyhow::Result<u64>) {
        match answer {
            Ok(micros) if due >= begin => self.latency.saturating_record(micros),
            Ok(_) => {}
            Err(error) => {
                self.failed += 1;
                self.why.get_or_insert(format!("{error:#}"));
            }
        }
    }
}

/// Moments at a steady rate, each sent when it has come, until `end`. From a thread of its own: tokio's timers are up to a millisecond late, which is a
/// fifth of what is measured by them.
#[allow(clippy::disallowed_methods, reason = "a thread of its own sleeps")]
fn ticks(rate: u32, end: Instant) -> UnboundedReceiver<Instant> {
    let (sender, receiver) = unbounded_channel();
    std::thread::spawn(move || {
        let mut due = Instant::now();
        while due < end && sender.send(due).is_ok() {
            due += Duration::from_secs(1) / rate;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
    });
    receiver
}

/// One kind of call at a steady rate: each is sent when it is due, whether or not those before it have been answered.
async fn steady<F, Fut>(rate: u32, begin: Instant, end: Instant, mut call: F) -> anyhow::Result<Answers>
where
    F: FnMut(usize) -> Fut,
    Fut: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let mut ticks = ticks(rate, end);
    let mut calls = JoinSet::new();
    let mut answers = Answers { latency: histogram()?, failed: 0, why: None };
    for number in 0.. {
        let Some(due) = ticks.recv().await else { break };
        let answer = call(number);
        calls.spawn(async move {
            // From when it was due: a client that is held up does not flatter the server.
            (due, answer.await.map(|()| micros(due)))
        });
        while let Some(done) = calls.try_join_next() {
            let (due, answer) = done?;
            answers.enter(begin, due, answer);
        }
    }
    while let Some(done) = calls.join_next().await {
        let (due, answer) = done?;
        answers.enter(begin, due, answer);
    }
    Ok(answers)
}

fn latency(of: &Histogram<u64>) -> Latency {
    let at = |q| Duration::from_micros(of.value_at_quantile(q));
    Latency { p50: at(0.5), p99: at(0.99) }
}

fn running(hosts: &[SimHost]) -> usize {
    hosts.iter().map(SimHost::running).sum()
}

impl Load {
    /// Runs it.
    pub async fn run(
        gateway: &mut GatewayProcess,
        database: Option<&PostgresServer>,
        hosts: &[SimHost],
        rate: u32,
        time: Duration,
    ) -> anyhow::Result<Self> {
        let channels = (0..4).map(|_| gateway.grpc()).collect::<anyhow::Result<Vec<GrpcClient>>>()?;
        let clients: Arc<Vec<_>> = Arc::new(channels.iter().map(|c| InstanceServiceClient::new(c.service())).collect());
        let launches = rate as usize * usize::try_from((WARM + time).as_secs())?;
        make_vpcs(&channels[0], launches.div_ceil(IN_VPC) + 1).await?;
        let page = ListInstancesRequest { page_size: 50, ..ListInstancesRequest::default() };
        let known = clients[0].clone().list_instances(ListInstancesRequest { page_size: 500, ..page.clone() }).await?;
        let answer = known.into_inner();
        let ids: Vec<String> = answer.instances.into_iter().map(|i| i.id).collect();
        let token = answer.next_page_token;

        let begin = Instant::now() + WARM;
        let end = begin + time;
        let launch = {
            let clients = Arc::clone(&clients);
            steady(rate, begin, end, move |number| {
                let mut client = clients[number % clients.len()].clone();
                async move {
                    let request = LaunchInstanceRequest {
                        name: format!("load-{number}"),
                        image: "tiny".into(),
                        instance_type: "tiny".into(),
                        vpc: format!("load-{}", number / IN_VPC),
                        ..LaunchInstanceRequest::default()
                    };
                    client.launch_instance(request).await.map(drop).context("a launch was refused")
                }
            })
        };
        let get = apart(gateway, move |client| {
            steady(GETS, begin, end, move |_| {
                let mut client = client.clone();
                let id = ids[rand::rng().random_range(0..ids.len())].clone();
                async move { client.get_instance(GetInstanceRequest { id }).await.map(drop).context("a get failed") }
            })
        })?;
        let list = apart(gateway, move |client| {
            steady(LISTS, begin, end, move |number| {
                let mut client = client.clone();
                // The first page, and one from the middle.
                let page_token = if number % 2 == 0 { String::new() } else { token.clone() };
                let request = ListInstancesRequest { page_token, ..page.clone() };
                async move { client.list_instances(request).await.map(drop).context("a list failed") }
            })
        })?;
        let measured = async {
            tokio::time::sleep_until(begin.into()).await;
            let (meters, before) = (Meters::start(gateway, database)?, running(hosts));
            tokio::time::sleep_until(end.into()).await;
            anyhow::Ok((meters.read(), running(hosts) - before))
        };
        let (launch, get, list, (shares, ran)) = tokio::try_join!(launch, get, list, measured)?;
        tokio::time::sleep(DRAIN).await;
        #[allow(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
        let per_second = |count: usize| count as f64 / time.as_secs_f64();
        Ok(Self {
            accepted: per_second(usize::try_from(launch.latency.len())?),
            running: per_second(ran),
            launch: latency(&launch.latency),
            get: latency(&get.latency),
            list: latency(&list.latency),
            failed: launch.failed + get.failed + list.failed,
            why: [launch.why, get.why, list.why].into_iter().flatten().next(),
            shares,
        })
    }
}

/// A client with the admin key.
type Client = InstanceServiceClient<cloud_testkit::grpc::Service>;

/// Calls from a thread and a connection of its own: what the simulated hosts of this process do beside it is not the gateway's latency.
fn apart<F, Fut>(
    gateway: &GatewayProcess,
    calls: F,
) -> anyhow::Result<impl Future<Output = anyhow::Result<Answers>> + use<F, Fut>>
where
    F: FnOnce(Client) -> Fut + Send + 'static,
    Fut: Future<Output = anyhow::Result<Answers>>,
{
    let (url, key) = (gateway.url(), gateway.key()?);
    let (sender, receiver) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let called = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let channel = Endpoint::try_from(url)?.connect_lazy();
                calls(InstanceServiceClient::new(GrpcClient::new(channel, &key)?.service())).await
            })
        };
        // Nobody waits any more where another of the calls failed.
        let _gone = sender.send(called());
    });
    Ok(async move { receiver.await? })
}

/// The VPCs of the tenants to come.
async fn make_vpcs(client: &GrpcClient, count: usize) -> anyhow::Result<()> {
    let mut calls = JoinSet::new();
    for number in 0..count {
        let mut vpcs = VpcServiceClient::new(client.service());
        calls.spawn(async move {
            vpcs.create_vpc(CreateVpcRequest { name: format!("load-{number}"), ..CreateVpcRequest::default() }).await
        });
        if calls.len() >= 32 {
            calls.join_next().await.context("a call")???;
        }
    }
    while let Some(done) = calls.join_next().await {
        done??;
    }
    Ok(())
}
