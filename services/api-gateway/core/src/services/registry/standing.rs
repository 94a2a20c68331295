//! How a host stands: what operators say of it and what its agents say, together.

use std::time::Duration;

use cloud_domain::{HostId, ImageId};

use super::{HostEntry, HostRegistry, Moment};
use crate::model::{AgentRole, HostCapacity, HostMode, Labels};

/// What operators see of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostState {
    /// All three agents answer, and their backends work.
    Up,
    /// One does not.
    Unreachable,
    /// Gets no new instances.
    Cordoned,
    /// Gets no new instances, and still holds some.
    Draining,
    /// Declared dead.
    Fenced,
    /// No longer part of the cloud.
    Removed,
}

impl HostState {
    /// Every state.
    pub const ALL: [Self; 6] =
        [Self::Up, Self::Unreachable, Self::Cordoned, Self::Draining, Self::Fenced, Self::Removed];

    /// What is said of it and whether its agents answer, as one word: that it does not answer comes before what was asked of it, and after
    /// that it was declared dead.
    #[must_use]
    pub const fn of(mode: HostMode, answers: bool) -> Self {
        match (mode, answers) {
            (HostMode::Removed, _) => Self::Removed,
            (HostMode::Fenced, _) => Self::Fenced,
            (_, false) => Self::Unreachable,
            (HostMode::Active, true) => Self::Up,
            (HostMode::Cordoned, true) => Self::Cordoned,
            (HostMode::Draining, true) => Self::Draining,
        }
    }

    /// The contract's word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Up => "UP",
            Self::Unreachable => "UNREACHABLE",
            Self::Cordoned => "CORDONED",
            Self::Draining => "DRAINING",
            Self::Fenced => "FENCED",
            Self::Removed => "REMOVED",
        }
    }
}

/// What placement looks at of a host.
#[derive(Debug)]
pub struct Facts<'a> {
    /// Its id.
    pub id: HostId,
    /// Its name.
    pub name: &'a str,
    /// How it stands.
    pub state: HostState,
    /// Words of the operators' own.
    pub labels: &'a Labels,
    /// What it has.
    pub capacity: &'a HostCapacity,
    entry: &'a HostEntry,
}

impl Facts<'_> {
    /// Whether it is known to have an image.
    #[must_use]
    pub fn has_image(&self, image: ImageId) -> bool {
        self.entry.images.contains(&image)
    }
}

impl HostRegistry {
    /// A host's state, and why.
    #[must_use]
    pub fn state(&self, host: HostId) -> (HostState, String) {
        let (answers, why) = self.answers(host);
        let hosts = self.lock();
        let Some(entry) = hosts.get(&host) else { return (HostState::Unreachable, why) };
        let said = entry.mode_reason.as_str();
        let reason: Vec<&str> = [said, why.as_str()].into_iter().filter(|part| !part.is_empty()).collect();
        (HostState::of(entry.mode, answers), reason.join("; "))
    }

    /// Whether all of a host's agents answer and their backends work; where not, why.
    #[must_use]
    pub fn answers(&self, host: HostId) -> (bool, String) {
        let hosts = self.lock();
        let Some(entry) = hosts.get(&host) else { return (false, "no agent has registered".to_owned()) };
        let (moment, mut wrong) = (self.moment(), Vec::new());
        for role in AgentRole::ALL {
            match entry.agents.get(&role) {
                None => wrong.push(format!("the {}-agent has not registered", role.as_str())),
                Some(a) if moment.silence_of(a) > self.timeout => {
                    wrong.push(format!(
                        "the {}-agent has been silent for {} s",
                        role.as_str(),
                        a.seen.elapsed().as_secs()
                    ));
                }
                Some(a) if !a.backend_error.is_empty() => {
                    wrong.push(format!("the {}-agent's backend does not work: {}", role.as_str(), a.backend_error));
                }
                // Its hypervisor is being looked at: until then there is nothing to promise.
                Some(_) if role == AgentRole::Compute && entry.capacity.vcpus == 0 => {
                    wrong.push("the compute-agent has not said yet what the host has".to_owned());
                }
                Some(_) => {}
            }
        }
        (wrong.is_empty(), wrong.join("; "))
    }

    fn all_answer(&self, moment: Moment, entry: &HostEntry) -> bool {
        let answers = |role| {
            let agent = entry.agents.get(&role);
            agent.is_some_and(|a| a.backend_error.is_empty() && moment.silence_of(a) <= self.timeout)
        };
        entry.capacity.vcpus > 0 && AgentRole::ALL.into_iter().all(answers)
    }

    /// Whether a host's agents answer and their backends work.
    #[must_use]
    pub fn is_up(&self, host: HostId) -> bool {
        self.lock().get(&host).is_some_and(|entry| self.all_answer(self.moment(), entry))
    }

    /// Whether a host is still part of the cloud, as far as is known here.
    #[must_use]
    pub fn knows(&self, host: HostId) -> bool {
        self.lock().contains_key(&host)
    }

    /// What operators say of a host, as far as is known here.
    #[must_use]
    pub fn mode(&self, host: HostId) -> HostMode {
        self.lock().get(&host).map(|h| h.mode).unwrap_or_default()
    }

    /// A host's agents that were heard within the timeout, or of which nothing can be said yet.
    #[must_use]
    pub fn heard_of(&self, host: HostId) -> Vec<AgentRole> {
        let hosts = self.lock();
        let Some(entry) = hosts.get(&host) else { return Vec::new() };
        let moment = self.moment();
        let heard = entry.agents.iter().filter(|(_, a)| moment.silence_of(a) <= self.timeout);
        heard.map(|(role, _)| *role).collect()
    }

    /// How long none of a host's agents has been heard; zero where one is.
    #[must_use]
    pub fn silent_for(&self, host: HostId) -> Duration {
        let hosts = self.lock();
        let Some(entry) = hosts.get(&host) else { return Duration::ZERO };
        let moment = self.moment();
        let least = entry.agents.values().map(|a| moment.silence_of(a)).min().unwrap_or_default();
        if least > self.timeout { least } else { Duration::ZERO }
    }

    /// The compute-agent says how busy its host is.
    pub(crate) fn loaded(&self, host: HostId, load: [u32; 3]) {
        let mut hosts = self.lock();
        if let Some(agent) = hosts.get_mut(&host).and_then(|h| h.agents.get_mut(&AgentRole::Compute)) {
            agent.load = load;
        }
    }

    /// A host's load averages over one, five and fifteen minutes, in hundredths.
    #[must_use]
    pub fn load(&self, host: HostId) -> [u32; 3] {
        let hosts = self.lock();
        hosts.get(&host).and_then(|h| h.agents.get(&AgentRole::Compute)).map(|a| a.load).unwrap_or_default()
    }

    /// A host has an image now, or does not any more.
    pub(crate) fn has_image(&self, host: HostId, image: ImageId, is: bool) {
        let mut hosts = self.lock();
        let Some(entry) = hosts.get_mut(&host) else { return };
        if is {
            entry.images.insert(image);
        } else {
            entry.images.remove(&image);
        }
    }

    /// Looks at every host, in no order.
    pub(crate) fn each(&self, mut look: impl FnMut(Facts<'_>)) {
        let (hosts, moment) = (self.lock(), self.moment());
        for (id, entry) in hosts.iter() {
            look(self.facts(moment, *id, entry));
        }
    }

    /// Looks at those hosts of a list that are known, in its order.
    pub(crate) fn each_of<T>(&self, list: Vec<T>, id: impl Fn(&T) -> HostId, mut look: impl FnMut(Facts<'_>, T)) {
        let (hosts, moment) = (self.lock(), self.moment());
        for item in list {
            let id = id(&item);
            if let Some(entry) = hosts.get(&id) {
                look(self.facts(moment, id, entry), item);
            }
        }
    }

    fn facts<'a>(&self, moment: Moment, id: HostId, entry: &'a HostEntry) -> Facts<'a> {
        Facts {
            id,
            name: &entry.name,
            state: HostState::of(entry.mode, self.all_answer(moment, entry)),
            labels: &entry.labels,
            capacity: &entry.offered,
            entry,
        }
    }

    /// How many hosts are in each state.
    #[must_use]
    pub fn count_states(&self) -> Vec<(HostState, u64)> {
        let mut counts: Vec<(HostState, u64)> = HostState::ALL.into_iter().map(|state| (state, 0)).collect();
        self.each(|facts| {
            if let Some((_, count)) = counts.iter_mut().find(|(state, _)| *state == facts.state) {
                *count += 1;
            }
        });
        counts
    }
}
