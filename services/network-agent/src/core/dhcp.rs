//! What the DHCP responder answers: the rules of RFC 2131 for a server whose every address is fixed.
//!
//! A guest is known by the switch port its request came in by, never by what it says about itself. Its address is always the one in
//! the model, so there is nothing to remember: an offer is the same before and after a restart.

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use cloud_domain::{MacAddr, PortId, VpcId};

use super::{flow::OfPort, model::VpcSlice, pipeline::Plugged};

/// How long a guest may use its address before it asks again.
pub const LEASE_TIME: Duration = Duration::from_secs(3600);

/// What a guest is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The NIC.
    pub port: PortId,
    /// The only client that is answered.
    pub mac: MacAddr,
    /// Its address.
    pub ip: Ipv4Addr,
    /// Its subnet's mask.
    pub mask: Ipv4Addr,
    /// The virtual router, and the name the server goes by.
    pub gateway: Ipv4Addr,
    /// Resolvers.
    pub dns: Vec<Ipv4Addr>,
    /// Bytes in one packet.
    pub mtu: u16,
    /// The guest's name; empty for none.
    pub hostname: String,
}

/// Leases by switch port, shared between who learns of VPCs and who answers guests.
#[derive(Debug, Clone, Default)]
pub struct LeaseTable(Arc<RwLock<Leases>>);

type Leases = BTreeMap<u16, (VpcId, Arc<Lease>)>;

impl LeaseTable {
    /// Replaces what is known of one VPC.
    pub fn replace(&self, vpc: VpcId, leases: BTreeMap<OfPort, Lease>) {
        let mut table = self.0.write().unwrap_or_else(PoisonError::into_inner);
        table.retain(|_, (owner, _)| *owner != vpc);
        table.extend(leases.into_iter().map(|(port, lease)| (port.get(), (vpc, Arc::new(lease)))));
    }

    /// The lease of the guest behind a switch port.
    #[must_use]
    pub fn get(&self, ofport: u16) -> Option<Arc<Lease>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(&ofport).map(|(_, lease)| Arc::clone(lease))
    }
}

/// The leases of a slice's local NICs.
#[must_use]
pub fn leases(slice: &VpcSlice, plugged: &Plugged) -> BTreeMap<OfPort, Lease> {
    let lease = |port: &super::model::Port| {
        let (ofport, subnet) = (plugged.get(&port.id)?, slice.subnets.get(&port.subnet)?);
        let lease = Lease {
            port: port.id,
            mac: port.mac,
            ip: port.ip,
            mask: subnet.cidr.net().netmask(),
            gateway: subnet.gateway,
            dns: subnet.dns.clone(),
            mtu: slice.mtu,
            hostname: port.hostname.clone(),
        };
        Some((*ofport, lease))
    };
    slice.local_ports().filter_map(lease).collect()
}

/// What a client asks (RFC 2131, table 2 to 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// DHCPDISCOVER.
    Discover,
    /// DHCPREQUEST.
    Request,
    /// DHCPINFORM.
    Inform,
    /// DHCPDECLINE, DHCPRELEASE and anything else that wants no answer.
    Other,
}

/// A request, as far as the answer depends on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// What it asks.
    pub ask: Ask,
    /// The client's hardware address.
    pub chaddr: MacAddr,
    /// The client's address, if it has one.
    pub ciaddr: Ipv4Addr,
    /// The address it wants (option 50).
    pub wanted: Option<Ipv4Addr>,
    /// The server it chose (option 54).
    pub server: Option<Ipv4Addr>,
}

/// Which answer a request gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// DHCPOFFER.
    Offer,
    /// DHCPACK with an address.
    Ack,
    /// DHCPACK without an address, to DHCPINFORM.
    Informed,
    /// DHCPNAK.
    Nak,
    /// Silence.
    Ignore,
}

/// Decides.
#[must_use]
pub fn decide(lease: &Lease, request: &Request) -> Verdict {
    if request.chaddr != lease.mac {
        return Verdict::Ignore;
    }
    match request.ask {
        Ask::Discover => Verdict::Offer,
        Ask::Inform if request.ciaddr == lease.ip => Verdict::Informed,
        Ask::Inform | Ask::Other => Verdict::Ignore,
        // It chose another server, which cannot be here: nobody else is heard by guests. It starts again after a while.
        Ask::Request if request.server.is_some_and(|server| server != lease.gateway) => Verdict::Ignore,
        Ask::Request => {
            let wanted = request.wanted.or((!request.ciaddr.is_unspecified()).then_some(request.ciaddr));
            if wanted == Some(lease.ip) { Verdict::Ack } else { Verdict::Nak }
        }
    }
}

#[cfg(test)]
mod tests;
