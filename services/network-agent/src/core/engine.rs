//! Makes a host agree with the slices it is given, and keeps it so.
//!
//! # Theory of operation
//!
//! The truth about what is plugged is the switch's database: ports carry their NIC, VPC and cloud as tags, the bridge carries the VPCs.
//! The truth about flows is the switch itself; `installed` is what it is believed to have, so that a change costs one bundle and no
//! reading. Whenever that belief may be wrong (start, error, the switch was restarted, someone changed flows by hand) it is dropped, and
//! [`Engine::resync`] reads everything, mends the difference, and believes again.
//!
//! Order matters on the way in: device, port, lease, flows. A port without flows is silent, so nothing is half open. On the way out it
//! is the reverse: flows, port, device.
//!
//! After a restart of the agent the slices are unknown until the gateway sends them again. Until then the flows of their VPCs stay as
//! they are; only those of VPCs that the bridge does not name are removed, because port numbers are used again.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::SystemTime,
};

use cloud_domain::{CloudId, PortId, Vni, VpcId};

use super::{
    dhcp::{LeaseTable, leases},
    diff::{Change, FlowSet, diff, flow_set},
    error::EngineError,
    flow::OfPort,
    model::{Order, Place, Port, VpcSlice},
    ofports::OfPorts,
    pipeline::{Plugged, host_rules, vpc_rules},
    ports::{BackendError, Device, Devices, NewPort, PluggedPort, PortChange, Status, Switch, SwitchPort, VpcState},
};

/// A VPC that was applied.
struct Held {
    slice: VpcSlice,
    plugged: Plugged,
}

/// The networks of one cloud on this host. One task owns it.
pub struct Engine {
    cloud: CloudId,
    switch: Arc<dyn Switch>,
    devices: Arc<dyn Devices>,
    leases: LeaseTable,
    tunnels: bool,
    numbers: OfPorts,
    held: BTreeMap<VpcId, Held>,
    removed: BTreeMap<VpcId, Order>,
    /// By VNI, the host's own under none; absent while not known.
    installed: Option<BTreeMap<Option<Vni>, FlowSet>>,
    applied_at: Option<SystemTime>,
    repairs: usize,
}

impl Engine {
    /// An engine that knows nothing yet. `tunnels` says whether this host can reach others.
    #[must_use]
    pub fn new(
        cloud: CloudId,
        switch: Arc<dyn Switch>,
        devices: Arc<dyn Devices>,
        leases: LeaseTable,
        tunnels: bool,
    ) -> Self {
        Self {
            cloud,
            switch,
            devices,
            leases,
            tunnels,
            numbers: OfPorts::default(),
            held: BTreeMap::new(),
            removed: BTreeMap::new(),
            installed: None,
            applied_at: None,
            repairs: 0,
        }
    }

    /// The cloud it works for.
    #[must_use]
    pub const fn cloud(&self) -> CloudId {
        self.cloud
    }

    /// How it does, apart from errors.
    #[must_use]
    pub fn status(&self) -> Status {
        let flows = self.installed.iter().flatten().map(|(_, set)| set.len()).sum();
        Status { error: None, applied_at: self.applied_at, vpcs: self.held.len(), flows, repairs: self.repairs }
    }

    /// Makes the host agree with a slice.
    ///
    /// # Errors
    /// See [`EngineError`]. What was done by then stays, invisible to guests, and the next try completes it.
    pub async fn apply(&mut self, slice: VpcSlice) -> Result<Vec<PluggedPort>, EngineError> {
        let vpc = slice.vpc;
        self.check_order(vpc, slice.order)?;
        // What a removal ended stays ended, however late a slice of that time arrives.
        if let Some(&known) = self.removed.get(&vpc).filter(|removed| slice.order <= **removed) {
            return Err(EngineError::Stale { vpc, given: slice.order, known });
        }
        if let Some(held) = self.held.get(&vpc)
            && held.slice.order == slice.order
            && self.installed.is_some()
        {
            return Ok(plugged_ports(&held.plugged));
        }
        self.make_sure_of_flows().await?;
        let ports = self.switch.ports(self.cloud).await?;
        self.check_claims(&slice, &ports).await?;
        let plugged = self.ensure_ports(&slice, &ports, &mut numbers_of(&ports)).await?;
        self.leases.replace(vpc, leases(&slice, &plugged));
        let want = flow_set(&vpc_rules(&slice, &plugged));
        self.set_flows(BTreeMap::from([(Some(slice.vni), want)])).await?;
        self.unplug_others(vpc, &plugged, &ports, None).await?;
        let answer = plugged_ports(&plugged);
        tracing::info!(%vpc, vni = %slice.vni, order = %slice.order, ports = answer.len(), "applied a VPC");
        self.held.insert(vpc, Held { slice, plugged });
        self.removed.remove(&vpc);
        self.applied_at = Some(SystemTime::now());
        Ok(answer)
    }

    /// Forgets a VPC.
    ///
    /// # Errors
    /// See [`EngineError`].
    pub async fn remove(&mut self, vpc: VpcId, order: Order) -> Result<(), EngineError> {
        self.check_order(vpc, order)?;
        self.make_sure_of_flows().await?;
        let held = self.held.get(&vpc).map(|held| held.slice.vni);
        let noted = self.switch.vpcs().await?.get(&vpc).copied();
        let ports = self.switch.ports(self.cloud).await?;
        if let Some(vni) = held.or(noted) {
            self.set_flows(BTreeMap::from([(Some(vni), FlowSet::new())])).await?;
        }
        self.leases.replace(vpc, BTreeMap::new());
        self.unplug_others(vpc, &Plugged::new(), &ports, noted.map(|_| (vpc, None))).await?;
        self.held.remove(&vpc);
        self.removed.insert(vpc, order);
        tracing::info!(%vpc, %order, "removed a VPC");
        Ok(())
    }

    /// What the switch has, and what is remembered of it.
    ///
    /// # Errors
    /// The switch does not answer.
    pub async fn list(&self) -> Result<Vec<VpcState>, EngineError> {
        let ports = self.switch.ports(self.cloud).await?;
        let state = |(vpc, vni)| VpcState {
            vpc,
            vni,
            order: self.held.get(&vpc).map(|held| held.slice.order).unwrap_or_default(),
            ports: ports
                .values()
                .filter(|p| p.vpc == vpc)
                .filter_map(|p| Some(PluggedPort { port: p.port, device: p.device.clone(), ofport: p.ofport? }))
                .collect(),
        };
        Ok(self.switch.vpcs().await?.into_iter().map(state).collect())
    }

    /// Reads what the switch has and mends every difference from what is held. Adopts what is not known yet.
    ///
    /// # Errors
    /// See [`EngineError`].
    pub async fn resync(&mut self) -> Result<(), EngineError> {
        self.installed = None;
        self.switch.ensure_bridge(self.cloud).await?;
        let ports = self.switch.ports(self.cloud).await?;
        let mut held = std::mem::take(&mut self.held);
        let result = self.mend(&mut held, &ports).await;
        self.held = held;
        result
    }

    /// Looks whether the switch still has what it was given: cheaply (how many flows, and whether every port is plugged), or flow by flow.
    ///
    /// # Errors
    /// See [`EngineError`].
    pub async fn sweep(&mut self, thorough: bool) -> Result<(), EngineError> {
        if !thorough && self.looks_right().await? {
            return Ok(());
        }
        self.resync().await
    }

    async fn looks_right(&self) -> Result<bool, EngineError> {
        let Some(installed) = &self.installed else { return Ok(false) };
        let known: usize = installed.values().map(BTreeMap::len).sum();
        let count = self.switch.flow_count().await?;
        if count != known {
            tracing::warn!(known, count, "the switch has another number of flows than were installed");
            return Ok(false);
        }
        let ports = self.switch.ports(self.cloud).await?;
        let works = |port: &PortId, number: OfPort| {
            ports.get(port).is_some_and(|found| found.ofport == Some(number) && found.error.is_none())
        };
        let lost = self.held.values().flat_map(|held| &held.plugged).find(|(port, number)| !works(port, **number));
        if let Some((port, number)) = lost {
            tracing::warn!(%port, ?number, found = ?ports.get(port), "a port is not plugged any more");
        }
        Ok(lost.is_none())
    }

    async fn make_sure_of_flows(&mut self) -> Result<(), EngineError> {
        if self.installed.is_some() { Ok(()) } else { self.resync().await }
    }

    async fn mend(
        &mut self,
        held: &mut BTreeMap<VpcId, Held>,
        ports: &BTreeMap<PortId, SwitchPort>,
    ) -> Result<(), EngineError> {
        let mut want = BTreeMap::from([(None, flow_set(&host_rules()))]);
        let mut taken = numbers_of(ports);
        for (vpc, Held { slice, plugged }) in held.iter_mut() {
            *plugged = self.ensure_ports(slice, ports, &mut taken).await?;
            self.leases.replace(*vpc, leases(slice, plugged));
            want.insert(Some(slice.vni), flow_set(&vpc_rules(slice, plugged)));
        }
        let noted: BTreeSet<Vni> = self.switch.vpcs().await?.into_values().collect();
        let mut installed: BTreeMap<Option<Vni>, FlowSet> = BTreeMap::new();
        for flow in self.switch.flows().await? {
            installed.entry(flow.body.cookie.vni()).or_default().insert(flow.key, flow.body);
        }
        for vni in installed.keys().flatten().filter(|vni| !noted.contains(vni)) {
            want.entry(Some(*vni)).or_default();
        }
        self.installed = Some(installed);
        let changed = self.set_flows(want).await?;
        if changed > 0 {
            tracing::info!(flows = changed, "made the switch's flows what they should be");
            self.repairs += changed;
        }
        Ok(())
    }

    fn check_order(&self, vpc: VpcId, given: Order) -> Result<(), EngineError> {
        let held = self.held.get(&vpc).map(|held| held.slice.order);
        match held.max(self.removed.get(&vpc).copied()) {
            Some(known) if given < known => Err(EngineError::Stale { vpc, given, known }),
            _ => Ok(()),
        }
    }

    /// Refuses what would take something from another VPC, or cannot be programmed.
    async fn check_claims(&self, slice: &VpcSlice, ports: &BTreeMap<PortId, SwitchPort>) -> Result<(), EngineError> {
        let vpc = slice.vpc;
        if !self.tunnels && !slice.tunnel_ends().is_empty() {
            return Err(EngineError::NoTunnel(vpc));
        }
        for (other, theirs) in self.switch.vpcs().await? {
            if (other == vpc) != (theirs == slice.vni) {
                return Err(EngineError::Vni { vpc, vni: slice.vni, other, theirs });
            }
        }
        let taken = |port: &Port| ports.get(&port.id).filter(|p| p.vpc != vpc);
        match slice.local_ports().find_map(taken) {
            Some(port) => Err(EngineError::PortTaken { port: port.port, vpc: port.vpc }),
            None => Ok(()),
        }
    }

    /// Makes the devices and switch ports of a slice's local NICs, and proves that the switch uses them.
    async fn ensure_ports(
        &mut self,
        slice: &VpcSlice,
        existing: &BTreeMap<PortId, SwitchPort>,
        taken: &mut BTreeSet<OfPort>,
    ) -> Result<Plugged, EngineError> {
        let device = |port: &Port| Device { cloud: self.cloud, vpc: slice.vpc, port: port.id, mtu: slice.mtu };
        self.devices.ensure(&slice.local_ports().map(device).collect::<Vec<_>>()).await?;
        let mut change = PortChange { note: Some((slice.vpc, Some(slice.vni))), ..PortChange::default() };
        let mut plugged = Plugged::new();
        for port in slice.local_ports() {
            let works = existing.get(&port.id).filter(|p| p.error.is_none()).and_then(|p| p.ofport);
            if let Some(ofport) = works {
                plugged.insert(port.id, ofport);
                continue;
            }
            if let Some(broken) = existing.get(&port.id) {
                tracing::warn!(port = %port.id, error = ?broken.error, "plugging a port anew");
                change.unplug.push(broken.device.clone());
            }
            let ofport = self.numbers.take(taken).ok_or(EngineError::Full)?;
            plugged.insert(port.id, ofport);
            change.plug.push(new_port(slice, port, ofport));
        }
        if change.plug.is_empty() && self.switch.vpcs().await?.contains_key(&slice.vpc) {
            return Ok(plugged);
        }
        let fresh: Vec<NewPort> = change.plug.clone();
        self.switch.change_ports(self.cloud, change).await?;
        self.prove(&fresh).await?;
        Ok(plugged)
    }

    /// The switch accepted the configuration; whether it uses each device under its number is another question.
    async fn prove(&self, fresh: &[NewPort]) -> Result<(), EngineError> {
        if fresh.is_empty() {
            return Ok(());
        }
        let ports = self.switch.ports(self.cloud).await?;
        for new in fresh {
            let found = ports.get(&new.port);
            let works = found.is_some_and(|p| p.ofport == Some(new.ofport) && p.error.is_none());
            if !works {
                let why = found.and_then(|p| p.error.clone()).unwrap_or_else(|| format!("it has {found:?}"));
                let what = format!("the switch does not use {} as port {}: {why}", new.device, new.ofport);
                return Err(BackendError::failed(what).into());
            }
        }
        Ok(())
    }

    /// Unplugs the VPC's ports that are not in `keep`, and removes their devices.
    async fn unplug_others(
        &self,
        vpc: VpcId,
        keep: &Plugged,
        existing: &BTreeMap<PortId, SwitchPort>,
        note: Option<(VpcId, Option<Vni>)>,
    ) -> Result<(), EngineError> {
        let gone = existing.values().filter(|p| p.vpc == vpc && !keep.contains_key(&p.port));
        let unplug: Vec<String> = gone.map(|p| p.device.clone()).collect();
        if !unplug.is_empty() || note.is_some() {
            let change = PortChange { unplug, note, ..PortChange::default() };
            self.switch.change_ports(self.cloud, change).await?;
        }
        let mut devices = self.devices.list(self.cloud).await?;
        devices.retain(|device| device.vpc == vpc && !keep.contains_key(&device.port));
        Ok(self.devices.remove(&devices).await?)
    }

    /// Replaces the flows of some VPCs, or of the host; how many it changed.
    async fn set_flows(&mut self, want: BTreeMap<Option<Vni>, FlowSet>) -> Result<usize, EngineError> {
        let Some(mut installed) = self.installed.take() else {
            return Err(BackendError::failed("the switch's flows are not known").into());
        };
        let mut change = Change::default();
        for (vni, want) in &want {
            change.extend(diff(installed.get(vni).unwrap_or(&FlowSet::new()), want));
        }
        if !change.is_empty() {
            tracing::debug!(adds = change.adds.len(), deletes = change.deletes.len(), "changing flows");
            // On failure `installed` stays unknown: the next call reads it.
            self.switch.change_flows(&change).await?;
        }
        installed.extend(want);
        installed.retain(|_, set| !set.is_empty());
        self.installed = Some(installed);
        Ok(change.deletes.len() + change.adds.len())
    }
}

fn numbers_of(ports: &BTreeMap<PortId, SwitchPort>) -> BTreeSet<OfPort> {
    ports.values().filter_map(|port| port.ofport).collect()
}

fn new_port(slice: &VpcSlice, port: &Port, ofport: OfPort) -> NewPort {
    debug_assert_eq!(port.place, Place::Local);
    NewPort {
        device: port.id.tap_device(),
        ofport,
        port: port.id,
        vpc: slice.vpc,
        vni: slice.vni,
        instance: port.instance,
    }
}

fn plugged_ports(plugged: &Plugged) -> Vec<PluggedPort> {
    let port =
        |(port, ofport): (&PortId, &OfPort)| PluggedPort { port: *port, device: port.tap_device(), ofport: *ofport };
    plugged.iter().map(port).collect()
}

#[cfg(test)]
mod tests;
