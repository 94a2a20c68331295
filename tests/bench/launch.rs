//! (a) Launch to RUNNING through the API against the same work by native commands.

use std::{path::Path, time::Instant};

use anyhow::Context as _;
use cloud_tests::RealCloud;
use serde_json::{Value, json};

use crate::{
    native::Model,
    table::{Table, median},
};

/// How much longer than the bare work a launch may take.
const BUDGET: f64 = 1.25;

/// Measures, in turns.
pub async fn measure(table: &mut Table, image: &Path, rounds: usize) -> anyhow::Result<()> {
    anyhow::ensure!(image.is_file(), "{} is not there: images/tiny/build.sh", image.display());
    let cloud = RealCloud::start().await?;
    // Brings the image into the host's cache.
    cloud.launch("model", json!({})).await?;
    let instance = cloud.becomes("model", "RUNNING").await?;
    let port = text(&instance["ports"][0], "id")?;
    let tap = format!("tap{}", &port.replace('-', "")[..11]);
    let model = Model::of(&text(&instance, "id")?, &tap, &text(&instance["ports"][0], "mac")?)?;
    let (mut ours, mut native) = (Vec::new(), Vec::new());
    for round in 0..=rounds {
        let name = format!("bench-{round}");
        let begun = Instant::now();
        cloud.launch(&name, json!({})).await?;
        cloud.becomes(&name, "RUNNING").await?;
        let took = begun.elapsed().as_secs_f64();
        cloud.delete(&name).await?;
        let by_hand = model.once(u8::try_from(round)?)?;
        // The first round warms up.
        if round > 0 {
            ours.push(took);
            native.push(by_hand);
        }
    }
    let (ours, native) = (median(ours), median(native));
    table.note("(a) the same disk, port and domain by native commands", format!("{:.0} ms", native * 1e3));
    table.note("    POST /instances to RUNNING", format!("{:.0} ms", ours * 1e3));
    let ratio = ours / native;
    table.judged("    against native commands", format!("{ratio:.2}"), &format!("at most {BUDGET}"), ratio <= BUDGET);
    Ok(())
}

fn text(value: &Value, key: &str) -> anyhow::Result<String> {
    value[key].as_str().map(str::to_owned).with_context(|| format!("no {key} in {value}"))
}
