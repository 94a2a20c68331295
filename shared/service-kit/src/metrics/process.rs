//! What the process uses, read from proc(5) whenever metrics are collected.

use std::fs;

use prometheus::{
    Counter, Gauge, Opts,
    core::{Collector, Desc},
    proto::MetricFamily,
};

/// Memory, processor time, file descriptors and start time of this process.
pub(super) struct ProcessCollector {
    resident: Gauge,
    cpu: Counter,
    descriptors: Gauge,
    threads: Gauge,
}

impl ProcessCollector {
    pub(super) fn new() -> Result<Self, prometheus::Error> {
        let opts = |name: &str, help: &str| Opts::new(name, help);
        Ok(Self {
            resident: Gauge::with_opts(opts("process_resident_memory_bytes", "Resident memory."))?,
            cpu: Counter::with_opts(opts("process_cpu_seconds_total", "User and system time."))?,
            descriptors: Gauge::with_opts(opts("process_open_fds", "Open file descriptors."))?,
            threads: Gauge::with_opts(opts("process_threads", "Threads."))?,
        })
    }

    /// Reads what can be read; a value that cannot stays as it was.
    fn update(&self) {
        if let Some(now) = Usage::read() {
            self.resident.set(now.resident_bytes);
            self.cpu.inc_by((now.cpu_seconds - self.cpu.get()).max(0.0));
            self.threads.set(now.threads);
        }
        if let Ok(entries) = fs::read_dir("/proc/self/fd") {
            // One of them is this very directory.
            self.descriptors.set(f64::from(u32::try_from(entries.count().saturating_sub(1)).unwrap_or(u32::MAX)));
        }
    }
}

struct Usage {
    resident_bytes: f64,
    cpu_seconds: f64,
    threads: f64,
}

impl Usage {
    fn read() -> Option<Self> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        // The name, in parentheses, may hold anything; fields are counted from its end: state is field 3.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
        // The kernel reports in ticks, of which every Linux has 100 a second (USER_HZ).
        let cpu_seconds = (field(14)? + field(15)?) / 100.0;
        let page = f64::from(u32::try_from(rustix::param::page_size()).ok()?);
        Some(Self { resident_bytes: field(24)? * page, cpu_seconds, threads: field(20)? })
    }
}

impl Collector for ProcessCollector {
    fn desc(&self) -> Vec<&Desc> {
        [self.resident.desc(), self.cpu.desc(), self.descriptors.desc(), self.threads.desc()].concat()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.update();
        [self.resident.collect(), self.cpu.collect(), self.descriptors.collect(), self.threads.collect()].concat()
    }
}
