//! What goes wrong, on demand: rules that delay, fail or hang the calls that a simulated host answers.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tokio::sync::watch;
use tonic::{Code, Status};

use super::Method;

/// What a rule does to a call.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Answers later.
    Delay(Duration),
    /// Answers later, by a random time of up to this.
    DelayUpTo(Duration),
    /// Answers with this code and does nothing.
    FailBefore(Code),
    /// Does the work and then answers with this code: the reply is lost.
    FailAfter(Code),
    /// Does nothing and never answers while the rule stands; the caller's deadline decides.
    Hang,
    /// Does the work and never answers while the rule stands.
    HangAfter,
}

/// When a rule strikes. Built by [`Rule::on`] and the methods after it.
#[derive(Debug, Clone)]
pub struct Rule {
    methods: BTreeSet<Method>,
    effect: Effect,
    skip: u32,
    times: Option<u32>,
    probability: f64,
}

impl Rule {
    /// Every call of `method`, always.
    #[must_use]
    pub fn on(method: Method, effect: Effect) -> Self {
        Self::on_all([method], effect)
    }

    /// Every call of every one of `methods`, always.
    #[must_use]
    pub fn on_all(methods: impl IntoIterator<Item = Method>, effect: Effect) -> Self {
        Self { methods: methods.into_iter().collect(), effect, skip: 0, times: None, probability: 1.0 }
    }

    /// Only for the next `count` calls that it would strike.
    #[must_use]
    pub fn times(self, count: u32) -> Self {
        Self { times: Some(count), ..self }
    }

    /// Only once.
    #[must_use]
    pub fn once(self) -> Self {
        self.times(1)
    }

    /// Not for the first `count` calls.
    #[must_use]
    pub fn after_calls(self, count: u32) -> Self {
        Self { skip: count, ..self }
    }

    /// Each time with this probability, 0 to 1, drawn from the seed of the [`Faults`].
    #[must_use]
    pub fn with_probability(self, probability: f64) -> Self {
        Self { probability, ..self }
    }
}

/// The rules in force on one host. A handle: clones share the rules.
#[derive(Debug, Clone)]
pub struct Faults {
    state: Arc<Mutex<State>>,
    /// Goes up when rules are removed, so that hanging calls look again.
    cleared: Arc<watch::Sender<u64>>,
}

#[derive(Debug)]
struct State {
    rules: Vec<Rule>,
    random: StdRng,
    struck: u64,
}

impl Faults {
    /// No rules; probabilities are drawn from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let state = State { rules: Vec::new(), random: StdRng::seed_from_u64(seed), struck: 0 };
        Self { state: Arc::new(Mutex::new(state)), cleared: Arc::new(watch::Sender::new(0)) }
    }

    /// Puts a rule in force beside the others. All that match strike.
    pub fn inject(&self, rule: Rule) {
        self.lock().rules.push(rule);
    }

    /// Removes every rule; hanging calls end with UNAVAILABLE.
    pub fn clear(&self) {
        self.lock().rules.clear();
        self.cleared.send_modify(|generation| *generation += 1);
    }

    /// How many times a rule struck.
    #[must_use]
    pub fn struck(&self) -> u64 {
        self.lock().struck
    }

    /// Draws what happens to one call.
    pub(crate) fn draw(&self, method: Method) -> Plan {
        let mut state = self.lock();
        let State { rules, random, struck } = &mut *state;
        let mut effects = Vec::new();
        for rule in rules.iter_mut().filter(|r| r.methods.contains(&method)) {
            if rule.skip > 0 {
                rule.skip -= 1;
                continue;
            }
            if rule.times == Some(0) || (rule.probability < 1.0 && !random.random_bool(rule.probability.max(0.0))) {
                continue;
            }
            rule.times = rule.times.map(|left| left - 1);
            *struck += 1;
            effects.push(rule.effect.clone());
        }
        Plan { method, effects, cleared: self.cleared.subscribe() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What happens to one call.
#[derive(Debug)]
pub(crate) struct Plan {
    method: Method,
    effects: Vec<Effect>,
    cleared: watch::Receiver<u64>,
}

impl Plan {
    /// Before the work.
    pub async fn before(&mut self) -> Result<(), Status> {
        for effect in self.effects.clone() {
            match effect {
                Effect::Delay(time) => tokio::time::sleep(time).await,
                Effect::DelayUpTo(most) => {
                    let part = rand::rng().random_range(0.0..=1.0);
                    tokio::time::sleep(most.mul_f64(part)).await;
                }
                Effect::FailBefore(code) => return Err(self.injected(code, "before it was carried out")),
                Effect::Hang => return Err(self.hang().await),
                Effect::FailAfter(_) | Effect::HangAfter => {}
            }
        }
        Ok(())
    }

    /// After the work.
    pub async fn after(&mut self) -> Result<(), Status> {
        for effect in self.effects.clone() {
            match effect {
                Effect::FailAfter(code) => return Err(self.injected(code, "after it was carried out")),
                Effect::HangAfter => return Err(self.hang().await),
                Effect::Delay(_) | Effect::DelayUpTo(_) | Effect::FailBefore(_) | Effect::Hang => {}
            }
        }
        Ok(())
    }

    async fn hang(&mut self) -> Status {
        // Fails only where the Faults are gone, and then nobody waits any more.
        let _gone = self.cleared.changed().await;
        self.injected(Code::Unavailable, "when the hang ended")
    }

    fn injected(&self, code: Code, when: &str) -> Status {
        Status::new(code, format!("injected fault: {} failed {when}", self.method))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn outcomes(faults: &Faults, count: usize) -> Vec<bool> {
        let mut all = Vec::new();
        for _ in 0..count {
            all.push(faults.draw(Method::EnsureVolume).before().await.is_ok());
        }
        all
    }

    #[tokio::test]
    async fn a_rule_strikes_its_methods_as_often_as_it_says() {
        let faults = Faults::new(1);
        let fail = Effect::FailBefore(Code::Internal);
        faults.inject(Rule::on(Method::EnsureVolume, fail).after_calls(1).times(2));
        assert!(faults.draw(Method::ListVolumes).before().await.is_ok());
        assert_eq!(outcomes(&faults, 5).await, [true, false, false, true, true]);
        assert_eq!(faults.struck(), 2);
    }

    #[tokio::test]
    async fn the_same_seed_draws_the_same() {
        let draw = |seed| async move {
            let faults = Faults::new(seed);
            faults.inject(Rule::on(Method::EnsureVolume, Effect::FailBefore(Code::Internal)).with_probability(0.5));
            outcomes(&faults, 64).await
        };
        let first = draw(7).await;
        assert_eq!(first, draw(7).await);
        assert_ne!(first, draw(8).await);
        assert!(first.contains(&true) && first.contains(&false));
    }

    #[tokio::test(start_paused = true)]
    async fn a_hang_ends_when_the_rules_are_cleared() {
        let faults = Faults::new(1);
        faults.inject(Rule::on(Method::ApplyVpc, Effect::HangAfter));
        let mut plan = faults.draw(Method::ApplyVpc);
        assert!(plan.before().await.is_ok());
        let hung = tokio::time::timeout(Duration::from_secs(3600), plan.after()).await;
        assert!(hung.is_err());
        faults.clear();
        assert_eq!(plan.after().await.unwrap_err().code(), Code::Unavailable);
        assert!(faults.draw(Method::ApplyVpc).after().await.is_ok());
    }
}
