//! One connection to libvirt, kept up.
//!
//! A task opens the connection, subscribes to events and watches over it: libvirt's keepalive and a small call every few seconds tell a daemon
//! that hangs from one that is busy. When it is lost, everybody is told (`Lost`), and the task tries again until it is back (`Connected`).
//! libvirt's calls block, so each runs on a blocking thread with a deadline; a call that is stuck in a hung daemon keeps its thread until the
//! keepalive ends the connection, and their number is limited.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, Semaphore, broadcast},
    time::timeout,
};
use tokio_util::task::AbortOnDropHandle;
use virt::{connect::Connect, error::Error};

use super::{
    errors::{is_connection_loss, translate},
    events,
};
use crate::core::{HypervisorError, HypervisorEvent};

/// Calls at once.
const SLOTS: usize = 16;
/// Seconds between keepalive messages, and how many may stay unanswered.
const KEEPALIVE: (i32, u32) = (5, 3);
const CHECK_EVERY: Duration = Duration::from_secs(5);
const CHECK_LIMIT: Duration = Duration::from_secs(5);
const OPEN_LIMIT: Duration = Duration::from_secs(10);
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(2));
/// Events that a slow receiver may be behind.
const EVENTS: usize = 1024;

/// The connection. Dropping it ends the task; guests do not notice.
pub struct Connection {
    shared: Arc<Shared>,
    _supervisor: AbortOnDropHandle<()>,
}

struct Shared {
    uri: String,
    live: Mutex<Live>,
    events: broadcast::Sender<HypervisorEvent>,
    /// A call failed in a way that puts the connection in doubt, or libvirt closed it.
    suspect: Arc<Notify>,
    slots: Arc<Semaphore>,
}

enum Live {
    Up(Connect),
    Down(String),
}

impl Connection {
    /// Starts to connect to `uri`.
    ///
    /// # Errors
    /// libvirt's event loop does not start.
    pub fn new(uri: String) -> Result<Self, Error> {
        events::start_loop()?;
        let shared = Arc::new(Shared {
            uri,
            live: Mutex::new(Live::Down("the first connection is not made yet".into())),
            events: broadcast::Sender::new(EVENTS),
            suspect: Arc::default(),
            slots: Arc::new(Semaphore::new(SLOTS)),
        });
        let supervisor = tokio::spawn(supervise(Arc::clone(&shared)));
        Ok(Self { shared, _supervisor: AbortOnDropHandle::new(supervisor) })
    }

    /// Events from now on.
    pub fn events(&self) -> broadcast::Receiver<HypervisorEvent> {
        self.shared.events.subscribe()
    }

    /// Whether there is a connection.
    pub fn is_up(&self) -> bool {
        matches!(*self.shared.live(), Live::Up(_))
    }

    /// Waits for a connection.
    ///
    /// # Errors
    /// There is none when `limit` has passed, and why.
    pub async fn wait_up(&self, limit: Duration) -> Result<(), HypervisorError> {
        let mut events = self.events();
        let up = async {
            while !self.is_up() {
                // Whatever happened, the answer is looked up.
                let _ = events.recv().await;
            }
        };
        let waited = timeout(limit, up).await;
        match (&*self.shared.live(), waited) {
            (Live::Down(reason), _) => Err(HypervisorError::Unavailable(reason.clone())),
            (Live::Up(_), _) => Ok(()),
        }
    }

    /// Runs blocking `work` with the connection, for `limit` at most. `action` says in the error what was tried.
    ///
    /// # Errors
    /// No connection, no answer in time, or what libvirt says.
    pub async fn call<T: Send + 'static>(
        &self,
        action: &'static str,
        limit: Duration,
        work: impl FnOnce(&Connect) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, HypervisorError> {
        let connect = match &*self.shared.live() {
            Live::Up(connect) => connect.clone(),
            Live::Down(reason) => return Err(HypervisorError::Unavailable(reason.clone())),
        };
        match self.shared.blocking(limit, move || work(&connect)).await {
            Some(Ok(value)) => Ok(value),
            Some(Err(error)) => {
                if is_connection_loss(&error) {
                    self.shared.suspect.notify_one();
                }
                Err(translate(action, &error))
            }
            None => {
                self.shared.suspect.notify_one();
                Err(HypervisorError::Deadline { action, limit })
            }
        }
    }
}

impl Shared {
    fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `work` on a blocking thread; `None` where `limit` passed first.
    async fn blocking<T: Send + 'static>(
        &self,
        limit: Duration,
        work: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Option<Result<T, Error>> {
        let slots = Arc::clone(&self.slots);
        let run = async move {
            let permit = slots.acquire_owned().await.ok()?;
            let task = tokio::task::spawn_blocking(move || {
                let _permit = permit;
                work()
            });
            // A panic in there is a defect of this program: it is shown by the panic hook, and no answer for the caller.
            task.await.ok()
        };
        timeout(limit, run).await.ok().flatten()
    }

    async fn open(self: &Arc<Self>) -> Result<(Connect, events::Subscription), String> {
        let this = Arc::clone(self);
        let opened = self.blocking(OPEN_LIMIT, move || {
            let connect = Connect::open(Some(&this.uri))?;
            connect.set_keep_alive(KEEPALIVE.0, KEEPALIVE.1)?;
            let subscription = events::subscribe(&connect, &this.events, &this.suspect)?;
            Ok((connect, subscription))
        });
        match opened.await {
            None => Err(format!("`{}` did not answer within {} s", self.uri, OPEN_LIMIT.as_secs())),
            Some(Err(error)) => Err(format!("cannot connect to `{}`: {}", self.uri, error.message().trim())),
            Some(Ok(opened)) => Ok(opened),
        }
    }

    fn set(&self, live: Live, event: HypervisorEvent) {
        *self.live() = live;
        // Nobody listening is fine.
        let _ = self.events.send(event);
    }
}

async fn supervise(shared: Arc<Shared>) {
    let mut pause = RETRY.0;
    loop {
        match shared.open().await {
            Ok((connect, subscription)) => {
                pause = RETRY.0;
                tracing::info!(uri = shared.uri, "connected to libvirt");
                shared.set(Live::Up(connect.clone()), HypervisorEvent::Connected);
                let fault = watch_over(&shared, &connect).await;
                tracing::warn!(uri = shared.uri, fault, "the connection to libvirt is lost");
                shared.set(Live::Down(fault), HypervisorEvent::Lost);
                // Freeing may block: nobody waits for it.
                drop(tokio::task::spawn_blocking(move || {
                    events::unsubscribe(&connect, &subscription);
                    drop(connect);
                }));
            }
            Err(reason) => {
                tracing::warn!(reason, "libvirt is not reachable; trying again");
                *shared.live() = Live::Down(reason);
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RETRY.1);
    }
}

/// Until the connection has ended, and why.
///
/// A daemon that does not answer is down, but the connection is kept: another one would not be answered either, and calls that hang in this one
/// would keep it open beside the new one. Either the daemon answers again, or the keepalive ends the connection.
async fn watch_over(shared: &Shared, connect: &Connect) -> String {
    loop {
        // Either way the connection is checked; the notification only makes it soon.
        let _ = timeout(CHECK_EVERY, shared.suspect.notified()).await;
        let checked = connect.clone();
        let mut check = tokio::task::spawn_blocking(move || {
            // The first alone does not ask the daemon, the second does.
            Ok::<_, Error>(checked.is_alive()? && checked.lib_version().is_ok())
        });
        let answer = match timeout(CHECK_LIMIT, &mut check).await {
            Ok(answer) => answer,
            Err(_) => {
                let reason = format!("libvirt did not answer within {} s", CHECK_LIMIT.as_secs());
                tracing::warn!(uri = shared.uri, reason, "libvirt hangs");
                shared.set(Live::Down(reason), HypervisorEvent::Lost);
                let answer = check.await;
                if matches!(answer, Ok(Ok(true))) {
                    tracing::info!(uri = shared.uri, "libvirt answers again");
                    shared.set(Live::Up(connect.clone()), HypervisorEvent::Connected);
                }
                answer
            }
        };
        match answer {
            Ok(Ok(true)) => {}
            Ok(Ok(false)) => return "libvirt closed the connection".into(),
            Ok(Err(error)) => return error.message().trim().to_owned(),
            Err(error) => return format!("the check of the connection failed: {error}"),
        }
    }
}
