//! VPC slices: the rules of `cloud.agent.v1.NetworkService` on the model.

use std::collections::{BTreeMap, BTreeSet};

use cloud_contracts::agent::{Owner, PluggedPort, VpcHeader, VpcPart, VpcState};
use cloud_domain::PortId;
use tonic::Status;

use super::{
    model::{Model, SimVpc},
    status::{differs, invalid},
};

impl Model {
    pub fn apply_vpc(
        &mut self,
        owner: Owner,
        header: &VpcHeader,
        epoch: u64,
        part: VpcPart,
    ) -> Result<Vec<PluggedPort>, Status> {
        if !(1..=0x00ff_ffff).contains(&header.vni) {
            return Err(invalid("header.vni", format!("must be 1 to 16777215, is {}", header.vni)));
        }
        let order = (epoch, header.generation);
        if let Some(is) = self.is.vpcs.get(&header.vpc_id) {
            self.check_owner("VPC", &is.owner)?;
            if is.vni != header.vni {
                return Err(differs("VPC", &header.vpc_id, "VNI", &is.vni, &header.vni));
            }
            if is.applied == Some(order) {
                return Ok(is.plugged());
            }
        }
        if let Some((other, _)) = self.is.vpcs.iter().find(|(id, v)| **id != header.vpc_id && v.vni == header.vni) {
            let text = format!("VNI {} is used by VPCs {other} and {}", header.vni, header.vpc_id);
            self.violation(text);
        }
        self.check_addresses(&header.vpc_id, &part);
        let plugged = self.plug(&header.vpc_id, &part)?;
        let vpc = SimVpc {
            owner,
            vni: header.vni,
            mtu: header.mtu,
            applied: Some(order),
            subnets: part.subnets,
            ports: part.ports,
            plugged,
        };
        let answer = vpc.plugged();
        self.is.vpcs.insert(header.vpc_id.clone(), vpc);
        Ok(answer)
    }

    fn check_addresses(&mut self, vpc: &str, part: &VpcPart) {
        let mut seen = BTreeSet::new();
        let twice: Vec<_> = part.ports.iter().filter(|p| !seen.insert((&p.subnet_id, &p.ip))).collect();
        for port in twice {
            self.violation(format!("address {} is used twice in VPC {vpc}", port.ip));
        }
    }

    /// Keeps what is plugged, plugs what is new, and sees what would be pulled from under a running guest.
    fn plug(&mut self, vpc: &str, part: &VpcPart) -> Result<BTreeMap<String, (String, u32)>, Status> {
        let was = self.is.vpcs.get(vpc).map(|v| v.plugged.clone()).unwrap_or_default();
        let mut plugged = BTreeMap::new();
        for port in part.ports.iter().filter(|p| p.local) {
            if !part.subnets.iter().any(|s| s.id == port.subnet_id) {
                return Err(invalid("part.ports.subnet_id", format!("`{}` is not in the slice", port.subnet_id)));
            }
            let id: PortId = port.id.parse().map_err(|e| invalid("part.ports.id", e))?;
            let entry = was.get(&port.id).cloned().unwrap_or_else(|| {
                self.next_ofport += 1;
                (id.tap_device(), self.next_ofport)
            });
            plugged.insert(port.id.clone(), entry);
        }
        self.check_unplugged(&was.keys().filter(|id| !plugged.contains_key(*id)).cloned().collect());
        Ok(plugged)
    }

    fn check_unplugged(&mut self, ports: &BTreeSet<String>) {
        let users: Vec<_> = self
            .is
            .domains
            .values()
            .filter(|d| d.is_active() && d.spec.nics.iter().any(|n| ports.contains(&n.port_id)))
            .map(|d| d.spec.id.clone())
            .collect();
        for user in users {
            self.violation(format!("a port was unplugged while instance {user} runs on it"));
        }
    }

    pub fn remove_vpc(&mut self, id: &str) -> Result<(), Status> {
        let Some(vpc) = self.is.vpcs.get(id) else { return Ok(()) };
        self.check_owner("VPC", &vpc.owner)?;
        let ports = vpc.plugged.keys().cloned().collect();
        self.is.vpcs.remove(id);
        self.check_unplugged(&ports);
        Ok(())
    }
}

impl SimVpc {
    pub(crate) fn plugged(&self) -> Vec<PluggedPort> {
        let wire = |(id, (device, ofport)): (&String, &(String, u32))| PluggedPort {
            id: id.clone(),
            device: device.clone(),
            ofport: *ofport,
        };
        self.plugged.iter().map(wire).collect()
    }

    pub(crate) fn wire(&self) -> VpcState {
        let (epoch, generation) = self.applied.unwrap_or_default();
        VpcState { owner: Some(self.owner.clone()), vni: self.vni, epoch, generation, ports: self.plugged() }
    }
}
