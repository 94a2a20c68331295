//! Which calls an agent takes: those addressed to its session, from its cloud, and not older than the newest it has seen.

use std::collections::HashMap;

use cloud_contracts::agent::CallContext;
use tonic::Status;

use super::{
    Role,
    status::{invalid, precondition},
};

/// What a call does to its resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Change,
    Removal,
}

/// What one agent remembers of calls. It forgets at its restart; the new session's id then keeps old calls out.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fence {
    pub session: String,
    pub cloud: Option<String>,
    newest: HashMap<String, (u64, u64, Kind)>,
}

impl Fence {
    pub fn new(session: String) -> Self {
        Self { session, ..Self::default() }
    }

    /// Takes a call that carries out a row's version, or says why not.
    pub fn admit(&mut self, context: Option<CallContext>, id: &str) -> Result<CallContext, Status> {
        let version = context.as_ref().map(|c| c.version).unwrap_or_default();
        self.admit_as(context, id, version, Kind::Change)
    }

    /// Takes a call of this version, or says why not. Of two calls of one version the removal is the newer one.
    pub fn admit_as(
        &mut self,
        context: Option<CallContext>,
        id: &str,
        version: u64,
        kind: Kind,
    ) -> Result<CallContext, Status> {
        let context = context.ok_or_else(|| invalid("context", "is required"))?;
        uuid::Uuid::try_parse(id).map_err(|_| invalid("id", format!("must be a UUID, is `{id}`")))?;
        self.check_session(&context)?;
        let order = (context.epoch, version, kind);
        match self.newest.get(id) {
            Some(newest) if order < *newest => Err(precondition(
                "STALE_CALL",
                format!("the call for {id} is of epoch and version {order:?}; {newest:?} was seen already"),
            )),
            _ => {
                self.newest.insert(id.to_owned(), order);
                Ok(context)
            }
        }
    }

    fn check_session(&self, context: &CallContext) -> Result<(), Status> {
        if context.session_id != self.session {
            let (sent, own) = (&context.session_id, &self.session);
            return Err(precondition("WRONG_SESSION", format!("the call is for session `{sent}`, this is `{own}`")));
        }
        match &self.cloud {
            Some(own) if *own != context.cloud_id => Err(precondition(
                "WRONG_CLOUD",
                format!("the call is from cloud `{}`, this is `{own}`", context.cloud_id),
            )),
            _ => Ok(()),
        }
    }
}

/// The fences of a host's three agents.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fences([Fence; 3]);

impl Fences {
    pub fn of(&mut self, role: Role) -> &mut Fence {
        &mut self.0[role.index()]
    }

    pub fn cloud(&self) -> Option<&str> {
        self.0.iter().find_map(|f| f.cloud.as_deref())
    }
}
