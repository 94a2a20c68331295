//! How far it is, on stderr: a line that moves on a terminal, a plain line for each change elsewhere.

use std::{
    cell::RefCell,
    env,
    io::{self, IsTerminal},
    time::Duration,
};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::output::{clean, human};

/// All progress lines of a command.
#[derive(Debug)]
pub struct Progress {
    /// None: no terminal.
    lines: Option<MultiProgress>,
}

impl Progress {
    /// On this process's stderr.
    pub fn new() -> Self {
        let terminal = io::stderr().is_terminal() && env::var_os("TERM").is_none_or(|term| term != "dumb");
        Self { lines: terminal.then(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr())) }
    }

    /// A line about `subject`, such as `instance db-01`.
    pub fn line(&self, subject: &str) -> Line {
        let bar = self.lines.as_ref().map(|lines| {
            let bar = lines.add(ProgressBar::new_spinner().with_style(style("{spinner} {prefix}  {msg}  {elapsed}")));
            bar.set_prefix(clean(subject));
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        Line { bar, subject: clean(subject), last: RefCell::default() }
    }

    /// The same, for what waits anyway: on a terminal only.
    pub fn quiet_line(&self, subject: &str) -> Option<Line> {
        self.lines.is_some().then(|| self.line(subject))
    }

    /// A bar for `total` bytes about `subject`.
    pub fn bytes(&self, subject: &str, total: u64) -> Bytes {
        let template = "{prefix}  [{wide_bar}] {binary_bytes}/{binary_total_bytes}  {binary_bytes_per_sec}  {eta}";
        let bar = match &self.lines {
            Some(lines) => lines.add(ProgressBar::new(total).with_style(style(template).progress_chars("=> "))),
            None => ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::hidden()),
        };
        bar.set_prefix(clean(subject));
        Bytes { bar, plain: self.lines.is_none(), subject: clean(subject), total, told: 0, sent: 0 }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

/// One progress line. It goes when it is dropped.
#[derive(Debug)]
pub struct Line {
    bar: Option<ProgressBar>,
    subject: String,
    last: RefCell<String>,
}

impl Line {
    /// Shows a status; the same one twice is shown once.
    pub fn status(&self, status: &str) {
        if *self.last.borrow() == status {
            return;
        }
        status.clone_into(&mut self.last.borrow_mut());
        match &self.bar {
            Some(bar) => bar.set_message(clean(status)),
            None => eprintln!("{}: {}", self.subject, clean(status)),
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// A bar that fills. It goes when it is dropped.
#[derive(Debug)]
pub struct Bytes {
    bar: ProgressBar,
    plain: bool,
    subject: String,
    total: u64,
    told: u64,
    sent: u64,
}

impl Bytes {
    /// So many bytes more.
    pub fn add(&mut self, count: u64) {
        self.sent += count;
        self.bar.inc(count);
        let quarter = (self.sent.saturating_mul(4)).checked_div(self.total).unwrap_or(4);
        if self.plain && quarter > self.told {
            self.told = quarter;
            eprintln!("{}: sent {} of {}", self.subject, human::bytes(self.sent), human::bytes(self.total));
        }
    }
}

impl Drop for Bytes {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
