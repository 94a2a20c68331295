//! Choosing switch port numbers for guests.

use std::collections::BTreeSet;

use super::flow::OfPort;

/// Gives out numbers in turn, so that one that was just given back rests the longest: what still names it (a frame on its way, a
/// connection tracking zone) has time to go.
#[derive(Debug, Default)]
pub struct OfPorts {
    last: u16,
}

impl OfPorts {
    /// A number that is not in `taken`, which it joins. None where all are.
    pub fn take(&mut self, taken: &mut BTreeSet<OfPort>) -> Option<OfPort> {
        // After a restart the turn begins behind the highest number in use.
        let start = if self.last == 0 { taken.last().map_or(0, |port| port.get()) } else { self.last };
        let all = u32::from(OfPort::MAX_GUEST);
        let candidate = |step| u16::try_from((u32::from(start) + step) % all + 1).ok().and_then(OfPort::guest);
        let port = (0..all).filter_map(candidate).find(|port| !taken.contains(port))?;
        self.last = port.get();
        taken.insert(port);
        Some(port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_given_back_rests() {
        let (mut ports, mut taken) = (OfPorts::default(), BTreeSet::new());
        let first = ports.take(&mut taken).unwrap();
        assert_eq!(first.get(), 1);
        taken.remove(&first);
        assert_eq!(ports.take(&mut taken).unwrap().get(), 2);
    }

    #[test]
    fn numbers_wrap_around_and_run_out() {
        let mut taken = BTreeSet::from([OfPort::guest(OfPort::MAX_GUEST).unwrap(), OfPort::guest(1).unwrap()]);
        let mut ports = OfPorts::default();
        assert_eq!(ports.take(&mut taken).unwrap().get(), 2);
        for n in 1..=OfPort::MAX_GUEST {
            taken.insert(OfPort::guest(n).unwrap());
        }
        assert_eq!(ports.take(&mut taken), None);
    }
}
