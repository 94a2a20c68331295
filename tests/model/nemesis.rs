//! Does what the plan says goes wrong, and undoes each of it.

use std::sync::Arc;

use cloud_testkit::{Effect, Method, Role, sim::Rule};
use tokio::{task::spawn_blocking, time::sleep};
use tokio_util::sync::CancellationToken;
use tonic::Code;

use crate::{
    cloud::ModelCloud,
    plan::{Fault, Trouble},
};

/// Goes through one lane until its end or `stop`; whatever happens, what was broken is whole again when this returns. Says how many faults
/// there were.
pub async fn run(cloud: Arc<ModelCloud>, lane: Vec<Trouble>, stop: CancellationToken) -> anyhow::Result<usize> {
    let mut count = 0;
    for trouble in lane {
        if stop.run_until_cancelled(sleep(trouble.rest)).await.is_none() {
            break;
        }
        begin(&cloud, trouble.fault).await?;
        count += 1;
        let _cut_short = stop.run_until_cancelled(sleep(trouble.lasts)).await;
        end(&cloud, trouble.fault).await?;
    }
    Ok(count)
}

fn of_role(role: Role) -> impl Iterator<Item = Method> {
    Method::ALL.iter().copied().filter(move |m| m.role() == role)
}

async fn begin(cloud: &Arc<ModelCloud>, fault: Fault) -> anyhow::Result<()> {
    match fault {
        Fault::KillGateway(at) => cloud.gateways[at].lock().await.kill(),
        Fault::PauseGateway(at) => {
            if let Some(process) = cloud.gateways[at].lock().await.process() {
                process.freeze()?;
            }
        }
        Fault::KillAgent(host, role) => cloud.hosts[host].kill_agent(role),
        Fault::HangAgent(host, role) => {
            cloud.hosts[host].faults().inject(Rule::on_all(of_role(role), Effect::HangAfter).with_probability(0.5));
            cloud.hosts[host].faults().inject(Rule::on_all(of_role(role), Effect::Hang));
        }
        Fault::LoseAnswers(host) => {
            let effect = Effect::FailAfter(Code::Unavailable);
            cloud.hosts[host].faults().inject(Rule::on_all(Method::ALL.iter().copied(), effect).with_probability(0.5));
        }
        Fault::BreakBackend(host, role) => cloud.hosts[host].set_backend_error(role, Some("broken on purpose")),
        Fault::PowerOff(host) => cloud.hosts[host].power_off(),
        Fault::CutNetwork(host) => cloud.hosts[host].cut_network(),
        Fault::CutDatabase(at) => cloud.cut_database(at, true),
        Fault::StopDatabase | Fault::CrashDatabase | Fault::PauseDatabase => {
            database(cloud, move |server| match fault {
                Fault::StopDatabase => server.stop(),
                Fault::CrashDatabase => server.crash(),
                _ => server.freeze(),
            })
            .await?;
        }
    }
    Ok(())
}

async fn end(cloud: &Arc<ModelCloud>, fault: Fault) -> anyhow::Result<()> {
    match fault {
        Fault::KillGateway(at) => cloud.gateways[at].lock().await.spawn()?,
        Fault::PauseGateway(at) => {
            if let Some(process) = cloud.gateways[at].lock().await.process() {
                process.thaw()?;
            }
        }
        Fault::KillAgent(host, role) => cloud.hosts[host].start_agent(role)?,
        Fault::HangAgent(host, _) | Fault::LoseAnswers(host) => cloud.hosts[host].faults().clear(),
        Fault::BreakBackend(host, role) => cloud.hosts[host].set_backend_error(role, None),
        Fault::PowerOff(host) => cloud.hosts[host].power_on()?,
        Fault::CutNetwork(host) => cloud.hosts[host].mend_network(),
        Fault::CutDatabase(at) => cloud.cut_database(at, false),
        Fault::StopDatabase | Fault::CrashDatabase => database(cloud, cloud_testkit::PostgresServer::restart).await?,
        Fault::PauseDatabase => database(cloud, cloud_testkit::PostgresServer::thaw).await?,
    }
    Ok(())
}

/// The server's programs are waited for.
async fn database(
    cloud: &Arc<ModelCloud>,
    act: impl FnOnce(&cloud_testkit::PostgresServer) -> anyhow::Result<()> + Send + 'static,
) -> anyhow::Result<()> {
    let cloud = Arc::clone(cloud);
    spawn_blocking(move || cloud.postgres.as_ref().map_or(Ok(()), act)).await?
}
