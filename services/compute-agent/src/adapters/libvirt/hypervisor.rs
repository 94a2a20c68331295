//! [`Hypervisor`] over a [`Connection`].

use std::{
    io,
    os::unix::net::UnixStream as StdUnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use async_trait::async_trait;
use cloud_domain::{InstanceId, Mib, VolumeId};
use tokio::{net::UnixStream, sync::broadcast, task::spawn_blocking};
use virt::{domain::Domain, error::Error, sys};

use super::{
    connection::Connection,
    disks::{self, Problem},
    domain_xml::{self, Surroundings},
    events,
    files::Files,
    iotune, lookup, seed,
    serial::SerialHub,
    tag_xml,
};
use crate::{
    adapters::accelerator::Accelerator,
    core::{ByteStream, Disk, Found, Guest, GuestSpec, Hypervisor, HypervisorError, HypervisorEvent, Tag},
};

/// Reading, and writing a tag.
const SHORT: Duration = Duration::from_secs(5);
/// What makes QEMU start or end.
const LONG: Duration = Duration::from_secs(25);

/// How guests are made here.
#[derive(Debug, Clone)]
pub struct LibvirtSettings {
    /// Such as `qemu:///system`.
    pub uri: String,
    /// Where files of guests are kept.
    pub instances: PathBuf,
    /// What guests run under.
    pub accelerator: Accelerator,
    /// The emulator, where libvirt's choice does not do.
    pub emulator: Option<PathBuf>,
    /// See [`Surroundings::nic_offload`].
    pub nic_offload: bool,
}

/// This host's libvirt.
pub struct LibvirtHypervisor {
    connection: Connection,
    settings: LibvirtSettings,
    files: Files,
    serial: SerialHub,
}

/// What the host has, in libvirt's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostInfo {
    /// Threads.
    pub vcpus: u32,
    /// In MiB.
    pub memory_mib: u64,
    /// Such as `QEMU 10.0.2, libvirt 11.3.0`.
    pub hypervisor: String,
}

impl LibvirtHypervisor {
    /// Starts to connect; does not wait for it.
    ///
    /// # Errors
    /// The directory for files, or libvirt's event loop.
    pub fn new(settings: LibvirtSettings) -> Result<Self, HypervisorError> {
        let connection = Connection::new(settings.uri.clone()).map_err(|error| HypervisorError::Failed {
            action: "start libvirt's event loop",
            message: error.message().to_owned(),
        })?;
        let files = Files::new(settings.instances.clone())?;
        Ok(Self { connection, settings, files, serial: SerialHub::default() })
    }

    /// Waits for a connection.
    ///
    /// # Errors
    /// There is none when `limit` has passed, and why.
    pub async fn wait_connected(&self, limit: Duration) -> Result<(), HypervisorError> {
        self.connection.wait_up(limit).await
    }

    /// What the host has. Also the test of whether libvirt works.
    ///
    /// # Errors
    /// It does not, and why.
    pub async fn host_info(&self) -> Result<HostInfo, HypervisorError> {
        self.connection
            .call("describe the host", SHORT, |connect| {
                let node = connect.node_info()?;
                let qemu = version(connect.hyp_version()?);
                let libvirt = version(connect.lib_version()?);
                Ok(HostInfo {
                    vcpus: node.cpus,
                    memory_mib: node.memory / 1024,
                    hypervisor: format!("QEMU {qemu}, libvirt {libvirt}"),
                })
            })
            .await
    }

    /// Whether this agent made files for the guest: what tells its guests from those of another agent on the same host.
    pub fn has_files(&self, id: InstanceId) -> bool {
        self.files.exists(id)
    }

    async fn with_domain(
        &self,
        id: InstanceId,
        action: &'static str,
        limit: Duration,
        work: impl FnOnce(&Domain) -> Result<(), Error> + Send + 'static,
    ) -> Result<(), HypervisorError> {
        self.connection.call(action, limit, move |connect| work(&lookup::domain(connect, id)?)).await
    }

    /// Works on the disks of a domain.
    async fn on_disks<T: Send + 'static>(
        &self,
        id: InstanceId,
        action: &'static str,
        work: impl FnOnce(&Domain) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, HypervisorError> {
        let done = self.connection.call(action, LONG, move |connect| match work(&lookup::domain(connect, id)?) {
            Err(Problem::Libvirt(error)) => Err(error),
            Err(Problem::Other(message)) => Ok(Err(message)),
            Ok(done) => Ok(Ok(done)),
        });
        done.await?.map_err(|message| HypervisorError::Failed { action, message })
    }

    async fn with_files<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Files) -> Result<T, HypervisorError> + Send + 'static,
    ) -> Result<T, HypervisorError> {
        let files = self.files.clone();
        let task = spawn_blocking(move || work(&files));
        let failed =
            |problem: String| HypervisorError::Failed { action: "work on the guest's files", message: problem };
        match tokio::time::timeout(LONG, task).await {
            Ok(joined) => joined.map_err(|error| failed(error.to_string()))?,
            Err(_) => Err(HypervisorError::Deadline { action: "work on the guest's files", limit: LONG }),
        }
    }
}

/// libvirt's versions are `major * 1,000,000 + minor * 1,000 + release`.
fn version(number: u32) -> String {
    format!("{}.{}.{}", number / 1_000_000, number / 1_000 % 1_000, number % 1_000)
}

fn io_failed(path: &Path, error: &io::Error) -> HypervisorError {
    HypervisorError::Files { path: path.to_owned(), problem: error.to_string() }
}

#[async_trait]
impl Hypervisor for LibvirtHypervisor {
    async fn find(&self, id: InstanceId) -> Result<Option<Found>, HypervisorError> {
        self.connection.call("look up the guest", SHORT, move |connect| lookup::find(connect, id)).await
    }

    async fn list(&self) -> Result<Vec<Guest>, HypervisorError> {
        self.connection.call("list the guests", 2 * SHORT, lookup::list).await
    }

    async fn define(&self, spec: &GuestSpec, tag: &Tag) -> Result<(), HypervisorError> {
        let id = spec.id;
        // libvirt does not say which one is missing.
        for nic in &spec.nics {
            let device = nic.device.as_str();
            if !tokio::fs::try_exists(Path::new("/sys/class/net").join(device)).await.unwrap_or(false) {
                return Err(HypervisorError::NetworkDevice(format!("there is no `{device}` for port {}", nic.port)));
            }
        }
        let image = seed::image(id, &spec.seed).map_err(|error| io_failed(&self.files.seed(id), &error))?;
        let record = spec.record.clone();
        let write = move |files: &Files| {
            files.write_seed(id, &image)?;
            files.write_record(id, &record)
        };
        self.with_files(write).await?;
        let surroundings = Surroundings {
            accelerator: self.settings.accelerator,
            emulator: self.settings.emulator.clone(),
            seed: self.files.seed(id),
            serial_socket: self.files.serial_socket(id),
            console_log: self.files.console_log(id),
            nic_offload: self.settings.nic_offload,
        };
        let xml = domain_xml::domain(spec, tag, &surroundings)
            .map_err(|error| HypervisorError::Failed { action: "describe the guest", message: error.to_string() })?;
        self.connection
            .call("define the guest", 2 * SHORT, move |connect| connect.define_domain_xml(&xml).map(drop))
            .await
    }

    async fn start(&self, id: InstanceId) -> Result<(), HypervisorError> {
        self.with_domain(id, "start the guest", LONG, Domain::create).await
    }

    async fn write_tag(&self, tag: &Tag) -> Result<(), HypervisorError> {
        let element = tag_xml::element(tag)
            .map_err(|error| HypervisorError::Failed { action: "describe the tag", message: error.to_string() })?;
        self.with_domain(tag.instance, "tag the guest", SHORT, move |domain| lookup::write_tag(domain, &element)).await
    }

    async fn shutdown(&self, id: InstanceId) -> Result<(), HypervisorError> {
        // The power button, not the guest agent: a guest that pretends to have one could block the call for a minute.
        self.with_domain(id, "ask the guest to shut down", 2 * SHORT, |domain| {
            domain.shutdown_flags(sys::VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN)
        })
        .await
    }

    async fn reboot(&self, id: InstanceId) -> Result<(), HypervisorError> {
        // libvirt presses the power button too, and resets the machine instead of ending it when the guest is down.
        self.with_domain(id, "ask the guest to reboot", 2 * SHORT, |domain| {
            domain.reboot(sys::VIR_DOMAIN_REBOOT_ACPI_POWER_BTN)
        })
        .await
    }

    async fn reset(&self, id: InstanceId) -> Result<(), HypervisorError> {
        self.with_domain(id, "reset the guest", 2 * SHORT, Domain::reset).await
    }

    async fn power_off(&self, id: InstanceId) -> Result<(), HypervisorError> {
        self.with_domain(id, "power off the guest", LONG, Domain::destroy).await
    }

    async fn resize_disk(&self, id: InstanceId, volume: VolumeId, size: Mib) -> Result<(), HypervisorError> {
        self.on_disks(id, "grow a disk of the guest", move |domain| disks::resize(domain, volume, size)).await
    }

    async fn attach_disk(&self, id: InstanceId, disk: &Disk) -> Result<(), HypervisorError> {
        let (disk, limits) = (disk.clone(), disk.limits);
        let differ = self.on_disks(id, "attach a disk to the guest", move |domain| disks::attach(domain, &disk));
        for (place, target) in differ.await? {
            iotune::set(&self.settings.uri, id, place, &target, limits).await?;
        }
        Ok(())
    }

    async fn detach_disk(&self, id: InstanceId, volume: VolumeId) -> Result<bool, HypervisorError> {
        self.on_disks(id, "detach a disk from the guest", move |domain| disks::detach(domain, volume)).await
    }

    async fn undefine(&self, id: InstanceId) -> Result<(), HypervisorError> {
        self.with_domain(id, "undefine the guest", 2 * SHORT, |domain| {
            domain.undefine_flags(
                sys::VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
                    | sys::VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
                    | sys::VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
                    | sys::VIR_DOMAIN_UNDEFINE_NVRAM
                    | sys::VIR_DOMAIN_UNDEFINE_TPM,
            )
        })
        .await
    }

    async fn record(&self, id: InstanceId) -> Result<String, HypervisorError> {
        self.with_files(move |files| files.read_record(id)).await
    }

    async fn keep_record(&self, id: InstanceId, record: &str) -> Result<(), HypervisorError> {
        let record = record.to_owned();
        self.with_files(move |files| files.write_record(id, &record)).await
    }

    async fn remove_files(&self, id: InstanceId) -> Result<(), HypervisorError> {
        self.with_files(move |files| files.remove(id)).await
    }

    async fn console_log(&self, id: InstanceId, max_bytes: usize) -> Result<Vec<u8>, HypervisorError> {
        self.with_files(move |files| files.console_tail(id, max_bytes)).await
    }

    async fn open_serial(&self, id: InstanceId) -> Result<Box<dyn ByteStream>, HypervisorError> {
        let socket = self.files.serial_socket(id);
        let viewer = tokio::time::timeout(SHORT, self.serial.view(id, &socket))
            .await
            .map_err(|_| HypervisorError::Deadline { action: "open the serial console", limit: SHORT })?;
        Ok(Box::new(viewer.map_err(|error| io_failed(&socket, &error))?))
    }

    async fn open_screen(&self, id: InstanceId) -> Result<Box<dyn ByteStream>, HypervisorError> {
        let action = "open the screen";
        let fd = self
            .connection
            .call(action, SHORT, move |connect| {
                lookup::domain(connect, id)?.open_graphics_fd(0, sys::VIR_DOMAIN_OPEN_GRAPHICS_SKIPAUTH)
            })
            .await?;
        let failed = |message: String| HypervisorError::Failed { action, message };
        let fd = events::own_fd(fd).ok_or_else(|| failed(format!("libvirt answered the descriptor {fd}")))?;
        let stream = StdUnixStream::from(fd);
        stream.set_nonblocking(true).map_err(|error| failed(error.to_string()))?;
        Ok(Box::new(UnixStream::from_std(stream).map_err(|error| failed(error.to_string()))?))
    }

    fn events(&self) -> broadcast::Receiver<HypervisorEvent> {
        self.connection.events()
    }

    fn is_connected(&self) -> bool {
        self.connection.is_up()
    }
}
