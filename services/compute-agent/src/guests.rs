//! `cloud-compute-agent guests …`: what an operator or a script does to the guests of a host without a gateway.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, bail};

use crate::{
    adapters::libvirt::LibvirtHypervisor,
    config::{GuestsCommand, Selection},
    core::{Compute, Guest, Hypervisor, stop_guest},
};

const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// Carries out a command and prints a line for each guest.
///
/// # Errors
/// libvirt is not reachable, or a guest could not be worked on; the others were.
pub async fn run(hypervisor: Arc<LibvirtHypervisor>, command: &GuestsCommand) -> anyhow::Result<()> {
    hypervisor.wait_connected(CONNECT_LIMIT).await?;
    let (GuestsCommand::Ls { selection } | GuestsCommand::Stop { selection, .. } | GuestsCommand::Remove { selection }) =
        command;
    let guests = selected(&hypervisor, *selection).await?;
    match command {
        GuestsCommand::Ls { .. } => {
            for guest in guests {
                println!("{} cloud {} {:?}", guest.tag.instance, guest.tag.cloud, guest.power());
            }
            Ok(())
        }
        GuestsCommand::Stop { grace, .. } => stop(&hypervisor, guests, Duration::from_secs(*grace)).await,
        GuestsCommand::Remove { .. } => remove(hypervisor, guests).await,
    }
}

async fn selected(hypervisor: &LibvirtHypervisor, selection: Selection) -> anyhow::Result<Vec<Guest>> {
    let mut guests = hypervisor.list().await.context("cannot list the guests")?;
    guests.retain(|guest| match selection.cloud_id {
        Some(cloud) => guest.tag.cloud == cloud,
        None => selection.all_of_host_state && hypervisor.has_files(guest.tag.instance),
    });
    Ok(guests)
}

async fn stop(hypervisor: &Arc<LibvirtHypervisor>, guests: Vec<Guest>, grace: Duration) -> anyhow::Result<()> {
    let mut tasks = tokio::task::JoinSet::new();
    for guest in guests.into_iter().filter(Guest::is_active) {
        let hypervisor = Arc::clone(hypervisor);
        tasks.spawn(async move {
            let result = stop_guest(&*hypervisor, &guest, grace).await;
            (guest.tag.instance, result)
        });
    }
    let mut failures = 0_usize;
    while let Some(done) = tasks.join_next().await {
        let (id, result) = done.context("stopping a guest panicked")?;
        match result {
            Ok(false) => println!("{id} shut down"),
            Ok(true) => println!("{id} powered off: it did not shut down within {} s", grace.as_secs()),
            Err(error) => {
                failures += 1;
                eprintln!("{id} not stopped: {error}");
            }
        }
    }
    if failures > 0 {
        bail!("{failures} guests could not be stopped");
    }
    Ok(())
}

async fn remove(hypervisor: Arc<LibvirtHypervisor>, guests: Vec<Guest>) -> anyhow::Result<()> {
    let compute = Compute::new(hypervisor);
    let mut failures = 0_usize;
    for guest in guests {
        let id = guest.tag.instance;
        match compute.remove(guest.tag.cloud, id).await {
            Ok(()) => println!("{id} removed"),
            Err(error) => {
                failures += 1;
                eprintln!("{id} not removed: {error}");
            }
        }
    }
    compute.close(CONNECT_LIMIT).await;
    if failures > 0 {
        bail!("{failures} guests could not be removed");
    }
    Ok(())
}
