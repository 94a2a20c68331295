//! The task that owns the engine: one change at a time, and repair in between.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use cloud_domain::{CloudId, VpcId};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, MissedTickBehavior, interval_at},
};
use tokio_util::sync::CancellationToken;

use super::{
    dhcp::LeaseTable,
    engine::Engine,
    error::EngineError,
    model::{Order, VpcSlice},
    ports::{Devices, NetworkBackend, PluggedPort, Status, Switch, VpcState},
};

/// How many calls may wait for their turn.
const QUEUE: usize = 64;
/// Every so many sweeps, flows are compared one by one instead of counted.
const THOROUGH: u64 = 6;
/// But not more often than this many times as long as the last such comparison took: a host with very many flows has other things to do.
const IDLE: u32 = 100;

type Reply<T> = oneshot::Sender<Result<T, EngineError>>;

enum Command {
    Apply(CloudId, Box<VpcSlice>, Reply<Vec<PluggedPort>>),
    Remove(CloudId, VpcId, Order, Reply<()>),
    List(Reply<Vec<VpcState>>),
}

/// The way to the task. Cheap to clone.
#[derive(Clone)]
pub struct Service {
    commands: mpsc::Sender<Command>,
    status: watch::Receiver<Status>,
}

/// What the task works with.
pub struct Parts {
    /// The switch.
    pub switch: Arc<dyn Switch>,
    /// The devices of NICs.
    pub devices: Arc<dyn Devices>,
    /// Where the DHCP responder looks.
    pub leases: LeaseTable,
    /// Whether this host can reach others.
    pub tunnels: bool,
    /// The cloud's id, once it is known.
    pub cloud: watch::Receiver<Option<CloudId>>,
    /// Whether the switch is up; each change to `true` is a switch without flows.
    pub switch_up: watch::Receiver<bool>,
    /// How often to look whether the switch still has what was installed.
    pub sweep: Duration,
    /// How soon to try again what failed.
    pub retry: Duration,
}

impl Service {
    /// A service and the task behind it, which the caller runs and joins. It ends when `shutdown` is cancelled and leaves everything
    /// as it is.
    pub fn new(parts: Parts, shutdown: CancellationToken) -> (Self, impl Future<Output = ()> + Send) {
        let (commands, queue) = mpsc::channel(QUEUE);
        let starting = Status { error: Some("starting".to_owned()), ..Status::default() };
        let (publish, status) = watch::channel(starting);
        let task = Task { parts, engine: None, publish, sweeps: 0, thorough_at: Instant::now() };
        (Self { commands, status }, task.run(queue, shutdown))
    }

    /// How the backend does.
    #[must_use]
    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    async fn call<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, EngineError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| EngineError::Ending)?;
        answer.await.map_err(|_| EngineError::Ending)?
    }
}

#[async_trait]
impl NetworkBackend for Service {
    async fn apply(&self, cloud: CloudId, slice: VpcSlice) -> Result<Vec<PluggedPort>, EngineError> {
        self.call(|reply| Command::Apply(cloud, Box::new(slice), reply)).await
    }

    async fn remove(&self, cloud: CloudId, vpc: VpcId, order: Order) -> Result<(), EngineError> {
        self.call(|reply| Command::Remove(cloud, vpc, order, reply)).await
    }

    async fn list(&self) -> Result<Vec<VpcState>, EngineError> {
        self.call(Command::List).await
    }
}

struct Task {
    parts: Parts,
    engine: Option<Engine>,
    publish: watch::Sender<Status>,
    sweeps: u64,
    /// When flows may be compared one by one again.
    thorough_at: Instant,
}

impl Task {
    async fn run(mut self, mut queue: mpsc::Receiver<Command>, shutdown: CancellationToken) {
        let mut cloud = self.parts.cloud.clone();
        let mut up = self.parts.switch_up.clone();
        let mut sweep = interval_at(Instant::now() + self.parts.sweep, self.parts.sweep);
        let mut retry = interval_at(Instant::now() + self.parts.retry, self.parts.retry);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        retry.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.start().await;
        loop {
            let failing = self.publish.borrow().error.is_some();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                Ok(()) = up.changed() => {
                    let is_up = *up.borrow_and_update();
                    self.switch_changed(is_up).await;
                }
                Ok(()) = cloud.changed() => self.start().await,
                Some(command) = queue.recv() => self.serve(command).await,
                _ = sweep.tick(), if !failing => self.sweep().await,
                _ = retry.tick(), if failing => self.start().await,
            }
        }
    }

    /// Learns the cloud's id, makes or adopts the bridge, mends what differs.
    async fn start(&mut self) {
        let Some(cloud) = *self.parts.cloud.borrow() else {
            return self.report(Some("not registered with a gateway yet".to_owned()));
        };
        if self.engine.as_ref().is_none_or(|engine| engine.cloud() != cloud) {
            let Parts { switch, devices, leases, tunnels, .. } = &self.parts;
            self.engine = Some(Engine::new(cloud, Arc::clone(switch), Arc::clone(devices), leases.clone(), *tunnels));
        }
        self.resync("cannot make the switch ready").await;
    }

    async fn switch_changed(&mut self, is_up: bool) {
        if is_up {
            tracing::info!("the switch is up: comparing its flows");
            self.start().await;
        } else {
            tracing::warn!("the switch does not answer");
            self.report(Some("ovs-vswitchd does not answer".to_owned()));
        }
    }

    async fn resync(&mut self, what: &str) {
        if let Some(engine) = &mut self.engine {
            let result = engine.resync().await;
            self.settle(what, result);
        }
    }

    async fn sweep(&mut self) {
        self.sweeps += 1;
        let begun = Instant::now();
        let thorough = self.sweeps.is_multiple_of(THOROUGH) && begun >= self.thorough_at;
        if let Some(engine) = &mut self.engine {
            let result = engine.sweep(thorough).await;
            if thorough {
                self.thorough_at = Instant::now() + begun.elapsed() * IDLE;
            }
            self.settle("cannot compare the switch's flows", result);
        }
    }

    fn settle(&mut self, what: &str, result: Result<(), EngineError>) {
        let error = result.err().map(|error| cloud_service_kit::error::chain(&error));
        let known = self.publish.borrow().error.clone();
        if let Some(error) = &error
            && known.as_ref() != Some(error)
        {
            tracing::warn!(%error, "{what}");
        }
        self.report(error);
    }

    fn report(&self, error: Option<String>) {
        let status = self.engine.as_ref().map(Engine::status).unwrap_or_default();
        self.publish.send_replace(Status { error, ..status });
    }

    async fn serve(&mut self, command: Command) {
        match command {
            Command::Apply(cloud, slice, reply) => {
                let result = match self.engine_for(cloud) {
                    Ok(engine) => engine.apply(*slice).await,
                    Err(error) => Err(error),
                };
                self.answer(reply, result);
            }
            Command::Remove(cloud, vpc, order, reply) => {
                let result = match self.engine_for(cloud) {
                    Ok(engine) => engine.remove(vpc, order).await,
                    Err(error) => Err(error),
                };
                self.answer(reply, result);
            }
            Command::List(reply) => {
                let result = match &self.engine {
                    Some(engine) => engine.list().await,
                    None => Err(EngineError::Unregistered),
                };
                self.answer(reply, result);
            }
        }
    }

    fn engine_for(&mut self, cloud: CloudId) -> Result<&mut Engine, EngineError> {
        let engine = self.engine.as_mut().ok_or(EngineError::Unregistered)?;
        if engine.cloud() == cloud {
            return Ok(engine);
        }
        Err(EngineError::Cloud(format!("this host belongs to cloud {}, the call is for {cloud}", engine.cloud())))
    }

    /// The caller may be gone; the work was done all the same.
    fn answer<T>(&mut self, reply: Reply<T>, result: Result<T, EngineError>) {
        let error = self.publish.borrow().error.clone();
        self.report(error);
        let _ = reply.send(result);
    }
}
