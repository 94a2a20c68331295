//! Where tunnels to a host end, when that changes.

use std::collections::BTreeSet;

use crate::{
    CoreError,
    model::{Host, Port},
    ports::{Query, StoreError, Tx, WorkKind},
};

/// Where the end of a host's tunnels is not what it was, the hosts of its VPCs are told anew: what they were told before leads nowhere. Their
/// agents take no generation twice, so each VPC gets another one. After the host's row is written: a launch locks its host, then its VPC.
pub(super) async fn moved<T: Tx>(tx: &mut T, host: &Host, before: &str) -> Result<(), CoreError> {
    if host.capacity.tunnel_address == before {
        return Ok(());
    }
    let ports: Vec<Port> = tx.list(&Query::by("host_id", &host.id())).await?;
    // In one order, so that two hosts that move at once do not wait for each other.
    for vpc in ports.iter().map(|port| port.vpc).collect::<BTreeSet<_>>() {
        match tx.bump_generation(vpc).await {
            Ok(()) => tx.enqueue(WorkKind::Vpc, *vpc.as_uuid()).await?,
            // Deleted meanwhile.
            Err(StoreError::Stale) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
