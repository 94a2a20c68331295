//! One simulated agent: a session, a server on a unix socket, and the signs of life it sends to the gateway.

use std::{collections::BTreeMap, sync::Arc};

use cloud_contracts::agent::{
    CallContext, Owner, compute_service_server::ComputeServiceServer, network_service_server::NetworkServiceServer,
    storage_service_server::StorageServiceServer,
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::{Response, Status, service::Routes};

use super::{Method, Role, faults::Plan, host::Shared, model::Model, serve, status::with_reason};

/// What serves the calls of one agent of a host, in one session.
#[derive(Clone)]
pub(crate) struct Agent {
    pub host: Arc<Shared>,
    stop: CancellationToken,
}

impl Agent {
    /// Counts the call and lets the faults strike that come before the work.
    pub async fn begin(&self, method: Method) -> Result<Plan, Status> {
        self.host.count(method);
        let mut plan = self.host.faults.draw(method);
        self.host.reachable().await;
        plan.before().await?;
        match &self.host.model().backend_errors[method.role().index()] {
            Some(error) => Err(with_reason(tonic::Code::Unavailable, "BACKEND_DOWN", error.clone())),
            None => Ok(plan),
        }
    }

    /// Answers one call by `work` on the model, with the faults before and after it.
    pub async fn call<T>(
        &self,
        method: Method,
        work: impl FnOnce(&mut Model) -> Result<T, Status>,
    ) -> Result<Response<T>, Status> {
        let mut plan = self.begin(method).await?;
        let answer = work(&mut self.host.model());
        plan.after().await?;
        answer.map(Response::new)
    }

    pub fn owner(context: &CallContext, id: &str, incarnation: &str) -> Owner {
        Owner { cloud_id: context.cloud_id.clone(), resource_id: id.to_owned(), incarnation: incarnation.to_owned() }
    }

    /// Resolves when this session ends.
    pub fn stopped(&self) -> WaitForCancellationFutureOwned {
        self.stop.clone().cancelled_owned()
    }

    fn routes(self, role: Role) -> Routes {
        match role {
            Role::Compute => Routes::new(ComputeServiceServer::new(self)),
            Role::Storage => Routes::new(StorageServiceServer::new(self)),
            Role::Network => Routes::new(NetworkServiceServer::new(self)),
        }
    }
}

/// The agents of a host that run now.
#[derive(Debug, Default)]
pub(crate) struct Running(BTreeMap<Role, serve::Owned>);

impl Running {
    /// Starts an agent with a new session. Replaces one that runs.
    pub fn start(&mut self, host: &Arc<Shared>, role: Role) -> std::io::Result<()> {
        self.kill(role);
        let session = uuid::Uuid::new_v4().to_string();
        host.model().start_session(role, session.clone());
        let owned = serve::Owned::default();
        let agent = Agent { host: host.clone(), stop: owned.token() };
        let noting = host.clone();
        let note = move |path: &str, headers: &http::HeaderMap| noting.note_trace(path, headers);
        serve::unix(&owned, &host.socket(role), agent.routes(role).prepare(), note)?;
        owned.spawn(super::register::live(host.clone(), role, session));
        self.0.insert(role, owned);
        Ok(())
    }

    /// As SIGKILL: connections break, calls in flight end where they are.
    pub fn kill(&mut self, role: Role) {
        self.0.remove(&role);
    }

    pub fn kill_all(&mut self) {
        self.0.clear();
    }
}
