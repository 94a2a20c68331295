//! The NICs of guests that no row knows, by what their hosts keep of them. As long as nobody has decided about such a guest it keeps its network:
//! its ports stay plugged, and its addresses are the last ones that are given to others.

use std::{
    collections::{BTreeSet, HashMap},
    net::Ipv4Addr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use cloud_domain::{HostId, SubnetId, VpcId};

use crate::{
    model::Instance,
    ports::{SlicePort, VpcSnapshot},
};

/// Those of one host.
#[derive(Debug, Default)]
struct OfHost {
    nics: Vec<(VpcId, SlicePort)>,
    /// Of each guest without a row it is known what NICs it has.
    all: bool,
}

/// What the inventories of this process found of them.
#[derive(Debug, Default)]
pub struct Strangers {
    /// A host that is not here has not said yet what guests it has.
    hosts: Mutex<HashMap<HostId, OfHost>>,
}

impl Strangers {
    fn lock(&self) -> MutexGuard<'_, HashMap<HostId, OfHost>> {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// These are a host's; `all`: there are no others.
    pub(crate) fn are(&self, host: HostId, guests: &[Instance], all: bool) {
        let nics = guests.iter().flat_map(|guest| guest.nics.iter().map(move |nic| (guest, nic)));
        let nics = nics.map(|(guest, nic)| {
            let port = SlicePort {
                id: nic.port,
                subnet: nic.subnet,
                instance: guest.id(),
                mac: nic.mac,
                ip: nic.ip,
                local: true,
                tunnel_address: String::new(),
                hostname: guest.meta.name.clone(),
            };
            (nic.vpc, port)
        });
        let nics = nics.collect();
        self.lock().insert(host, OfHost { nics, all });
    }

    /// A host's ports of one VPC that a host is to keep beside those of the rows: no port or address that a row has, and none twice. None: the host has
    /// not said yet what guests it has.
    pub(crate) fn ports(&self, host: HostId, vpc: &VpcSnapshot) -> Option<Vec<SlicePort>> {
        let hosts = self.lock();
        let mut kept: Vec<SlicePort> = Vec::new();
        for (_, port) in hosts.get(&host)?.nics.iter().filter(|(of, _)| *of == vpc.vpc.id()) {
            let rows_have = vpc.ports.iter().any(|row| {
                row.id() == port.id || row.mac == port.mac || (row.subnet, row.ip) == (port.subnet, port.ip)
            });
            let twice = kept.iter().any(|other| {
                other.id == port.id || other.mac == port.mac || (other.subnet, other.ip) == (port.subnet, port.ip)
            });
            let subnet = vpc.subnets.iter().find(|subnet| subnet.id() == port.subnet);
            if !rows_have && !twice && subnet.is_some_and(|subnet| subnet.cidr.is_guest(port.ip)) {
                kept.push(port.clone());
            }
        }
        Some(kept)
    }

    /// The VPCs that they are in on a host, and whether there is no other guest without a row there. None as with [`Self::ports`].
    pub(crate) fn vpcs(&self, host: HostId) -> Option<(BTreeSet<VpcId>, bool)> {
        let hosts = self.lock();
        let of_host = hosts.get(&host)?;
        Some((of_host.nics.iter().map(|(vpc, _)| *vpc).collect(), of_host.all))
    }

    /// The hosts that have some in a VPC.
    pub(crate) fn hosts_of(&self, vpc: VpcId) -> Vec<HostId> {
        let hosts = self.lock();
        hosts.iter().filter(|(_, is)| is.nics.iter().any(|(of, _)| *of == vpc)).map(|(host, _)| *host).collect()
    }

    /// Whether one of them, on whatever host, has this address.
    pub(crate) fn have(&self, subnet: SubnetId, ip: Ipv4Addr) -> bool {
        let hosts = self.lock();
        hosts.values().flat_map(|is| &is.nics).any(|(_, port)| (port.subnet, port.ip) == (subnet, ip))
    }
}

#[cfg(test)]
mod tests {
    use cloud_domain::{MacAddr, PortId};

    use super::*;
    use crate::model::{Labels, Meta, Port, Subnet, Vpc};

    fn meta(id: uuid::Uuid, name: &str) -> Meta {
        Meta::new(id, uuid::Uuid::nil().into(), "default", name, Labels::new())
    }

    fn guest(vpc: &VpcSnapshot, ip: &str) -> Instance {
        let port = PortId::random();
        let nic = serde_json::json!({
            "port": port, "vpc": vpc.vpc.id(), "vpc_name": "blue", "subnet": vpc.subnets[0].id(), "subnet_name": "default",
            "mac": MacAddr::for_port(port), "ip": ip,
        });
        let id = uuid::Uuid::new_v4();
        let row = serde_json::json!({
            "meta": meta(id, "web-01"), "image": id, "image_name": "tiny", "instance_type": "tiny", "vcpus": 1, "memory_mib": 128,
            "status": cloud_domain::InstanceStatus::Running, "status_reason": "", "desired": crate::model::Desired::Running,
            "host": id, "host_name": "h1", "incarnation": id, "boot_generation": 0, "nics": [nic], "disks": [],
            "ssh_keys": [], "user_data": "", "started_at": null, "has_run": true, "holds_capacity": true,
            "stop_requested_at": null, "start_deadline": null,
        });
        Instance::from_record(&row.to_string()).unwrap()
    }

    #[test]
    fn a_host_keeps_what_no_row_has_and_no_address_twice() {
        let (vpc, host) = (VpcId::random(), HostId::random());
        let cidr = "10.0.0.0/24".parse().unwrap();
        let subnet = Subnet {
            meta: meta(*SubnetId::random().as_uuid(), "default"),
            vpc,
            vpc_name: "blue".into(),
            cidr,
            dns_servers: Vec::new(),
        };
        let mut snapshot = VpcSnapshot {
            vpc: Vpc { meta: meta(*vpc.as_uuid(), "blue"), cidr, vni: 7.try_into().unwrap(), is_default: false },
            generation: 1,
            subnets: vec![subnet],
            ports: Vec::new(),
            tunnels: HashMap::new(),
        };
        let strangers = Strangers::default();
        let kept = |snapshot: &VpcSnapshot| {
            Some(strangers.ports(host, snapshot)?.iter().map(|port| port.ip.to_string()).collect::<Vec<_>>())
        };
        assert_eq!(kept(&snapshot), None, "it has not said what guests it has");
        // The third has the address of the second, the fourth one of another subnet.
        let guests = ["10.0.0.5", "10.0.0.6", "10.0.0.6", "10.9.0.5"].map(|ip| guest(&snapshot, ip));
        strangers.are(host, &guests, true);
        assert_eq!(kept(&snapshot).unwrap(), ["10.0.0.5", "10.0.0.6"]);
        assert_eq!(strangers.hosts_of(vpc), [host]);
        assert!(strangers.have(snapshot.subnets[0].id(), "10.0.0.6".parse().unwrap()));
        let nic = &guests[1].nics[0];
        snapshot.ports.push(Port {
            meta: meta(*PortId::random().as_uuid(), "port"),
            vpc,
            vpc_name: "blue".into(),
            subnet: nic.subnet,
            subnet_name: "default".into(),
            mac: MacAddr::for_port(PortId::random()),
            ip: nic.ip,
            instance: guests[0].id(),
            instance_name: "web-02".into(),
            host: HostId::random(),
            host_name: "h2".into(),
            removing: false,
        });
        assert_eq!(kept(&snapshot).unwrap(), ["10.0.0.5"], "a row has the other one");
        strangers.are(host, &[], true);
        assert_eq!(kept(&snapshot).unwrap(), Vec::<String>::new());
    }
}
