//! What tests that break things at random share: a seed that is printed and can be given again, and a time.
//!
//! `CLOUD_CHAOS_SEED=42 CLOUD_CHAOS_SECONDS=600` in the environment chooses both; `make chaos` sets them. Without them the seed is new each
//! time and the time is the test's own, short one.

use std::{
    env,
    str::FromStr,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use cloud_testkit::{GatewayProcess, RestClient};
use rand::{SeedableRng as _, rngs::StdRng};

/// The variable with the seed.
pub const SEED: &str = "CLOUD_CHAOS_SEED";
/// The variable with the time, in seconds.
pub const SECONDS: &str = "CLOUD_CHAOS_SECONDS";
/// The variable with the number of rounds, for tests that go in rounds.
pub const ROUNDS: &str = "CLOUD_CHAOS_ROUNDS";

/// A number in a variable of the environment.
///
/// # Panics
/// It is no number: one that is ignored would be a run that cannot be repeated.
#[must_use]
pub fn given<T: FromStr>(variable: &str) -> Option<T> {
    let text = env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")))
}

/// What a random test is driven by.
#[derive(Debug, Clone)]
pub struct Chaos {
    what: String,
    seed: u64,
    begun: Instant,
    time: Duration,
    rounds: Option<u32>,
}

impl Chaos {
    /// For the test `what`, for `seconds` unless the environment says otherwise. Prints how to repeat it.
    #[must_use]
    pub fn new(what: &str, seconds: u64) -> Self {
        let seed = given(SEED).unwrap_or_else(rand::random);
        let time = Duration::from_secs(given(SECONDS).unwrap_or(seconds));
        Self { what: what.into(), seed, begun: Instant::now(), time, rounds: None }.said()
    }

    /// For the test `what`, which goes on for `rounds` unless the environment says otherwise.
    #[must_use]
    pub fn in_rounds(what: &str, rounds: u32) -> Self {
        let seed = given(SEED).unwrap_or_else(rand::random);
        let rounds = Some(given(ROUNDS).unwrap_or(rounds));
        Self { what: what.into(), seed, begun: Instant::now(), time: Duration::MAX, rounds }.said()
    }

    fn said(self) -> Self {
        println!("{}", self.again());
        self
    }

    /// How to repeat this run.
    #[must_use]
    pub fn again(&self) -> String {
        let long = match self.rounds {
            Some(rounds) => format!("{ROUNDS}={rounds}"),
            None => format!("{SECONDS}={}", self.time.as_secs()),
        };
        format!("{}: {SEED}={} {long}", self.what, self.seed)
    }

    /// How many rounds it goes.
    #[must_use]
    pub fn rounds(&self) -> u32 {
        self.rounds.unwrap_or(1)
    }

    /// The random numbers of part `number` of the test: the same for the same seed, whatever the other parts draw.
    #[must_use]
    pub fn random(&self, number: u64) -> StdRng {
        StdRng::seed_from_u64(self.seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// There is time left.
    #[must_use]
    pub fn goes_on(&self) -> bool {
        self.begun.elapsed() < self.time
    }

    /// Adds how to repeat this run to an error.
    #[must_use]
    pub fn context(&self, error: anyhow::Error) -> anyhow::Error {
        error.context(self.again())
    }
}

/// What a log says of a panic or a bug.
#[must_use]
pub fn bugs(log: &str) -> Vec<String> {
    let bug = |line: &&str| {
        line.contains("panicked at") || line.contains("\"panic\"") || line.contains("overflowed its stack")
    };
    log.lines().filter(bug).map(str::to_owned).collect()
}

/// Sees that a gateway runs, answers, and has not panicked.
///
/// # Errors
/// One of these does not hold; says which.
pub async fn daemon_is_sound(gateway: &mut GatewayProcess) -> anyhow::Result<()> {
    let ended = gateway.process().context("the gateway was killed")?.ended()?;
    anyhow::ensure!(ended.is_none(), "the gateway ended: {ended:?}\n{}", gateway.log_tail());
    let bugs = bugs(&gateway.log()?);
    anyhow::ensure!(bugs.is_empty(), "the gateway panicked:\n{}", bugs.join("\n"));
    let ready = RestClient::new(gateway.url()).get("/health/ready").await?;
    anyhow::ensure!(ready.status.is_success(), "not ready: {} {}", ready.status, ready.text());
    Ok(())
}
