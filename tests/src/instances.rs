//! What tests do with the instances of a cloud, through its public API.

use std::time::Duration;

use anyhow::Context as _;
use cloud_testkit::{RestClient, until};
use serde_json::{Value, json};

/// How long anything may take that boots no guest, on a busy machine whose hypervisor is asked for the first time.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// How long a guest may take to boot, under emulation on a busy machine.
pub const BOOT: Duration = Duration::from_secs(120);
/// The image's name in the clouds of these tests.
pub const IMAGE: &str = "tiny";

/// Writes to its data volume, and says its size again and again, in blocks of 512 bytes.
pub const DATA_WRITER: &str = "#!/bin/sh
printf 'kept-4711' | dd of=/dev/vdb bs=512 conv=sync,fsync 2> /dev/null
echo wrote
while true; do echo \"blocks $(cat /sys/block/vdb/size)\"; sleep 1; done &
";
/// Says when the disk of this serial number comes, with what is at its beginning, which it writes where there is nothing; and when it goes.
#[must_use]
pub fn data_watcher(serial: &str) -> String {
    format!(
        "#!/bin/sh
is=gone
while true; do
    now=gone
    for disk in /sys/block/vd*; do [ \"$(cat \"$disk/serial\")\" != {serial} ] || now=${{disk##*/}}; done
    if [ \"$now\" != \"$is\" ]; then
        is=$now
        if [ \"$now\" = gone ]; then
            echo data went
        else
            found=$(dd if=/dev/$now bs=9 count=1 2> /dev/null | tr -d '\\000')
            echo \"data came with ${{found:-nothing}}\"
            if [ -z \"$found\" ]; then
                printf 'kept-4711' | dd of=/dev/$now bs=512 conv=sync,fsync 2> /dev/null
                echo data written
            fi
        fi
    fi
    [ -n \"$ready\" ] || {{ ready=yes; echo watching; }}
    sleep 1
done &
"
    )
}
/// Says what is at the beginning of its data volume.
pub const DATA_READER: &str = "#!/bin/sh
echo \"found $(dd if=/dev/vdb bs=9 count=1 2> /dev/null) in $(cat /sys/block/vdb/size)\"
";

/// Writes 6 MiB to its data volume and reads them, again and again, and says how many hundredths of a second each took.
pub const DATA_TIMER: &str = "#!/bin/sh
now() { read -r up _ < /proc/uptime; echo \"${up%.*}${up#*.}\"; }
run=0
while true; do
    run=$((run + 1))
    began=$(now)
    dd if=/dev/zero of=/dev/vdb bs=64k count=96 conv=fsync 2> /dev/null
    wrote=$(now)
    echo 3 > /proc/sys/vm/drop_caches
    dd if=/dev/vdb of=/dev/null bs=64k count=96 2> /dev/null
    echo \"run $run: wrote in $((wrote - began)), read in $(($(now) - wrote)).\"
    sleep 1
done &
";

/// The instances of a cloud.
#[derive(Debug, Clone, Copy)]
pub struct Instances<'a>(pub &'a RestClient);

impl Instances<'_> {
    /// Launches an instance of [`IMAGE`] with more fields, and returns it as answered.
    ///
    /// # Errors
    /// Anything but 201.
    pub async fn launch(self, name: &str, more: Value) -> anyhow::Result<Value> {
        self.0.post("/instances", &Self::body(name, more)).await?.expect(201)
    }

    /// What [`launch`](Self::launch) sends.
    #[must_use]
    pub fn body(name: &str, more: Value) -> Value {
        let mut body = json!({"name": name, "image": IMAGE, "instance_type": "tiny"});
        if let (Some(body), Value::Object(more)) = (body.as_object_mut(), more) {
            body.extend(more);
        }
        body
    }

    /// An instance by id or name.
    ///
    /// # Errors
    /// Anything but 200.
    pub async fn get(self, id: &str) -> anyhow::Result<Value> {
        self.0.get(&format!("/instances/{id}")).await?.expect(200)
    }

    /// Waits until an instance has this status; ERROR on the way there ends the waiting.
    ///
    /// # Errors
    /// Another end, or it takes too long.
    pub async fn becomes(self, id: &str, status: &str) -> anyhow::Result<Value> {
        until(&format!("{id} to be {status}"), PATIENCE, || async {
            // The gateway may be away: it is killed in some tests.
            let Ok(answer) = self.0.get(&format!("/instances/{id}")).await else {
                return Ok(Err("no answer".into()));
            };
            if answer.status.is_server_error() {
                return Ok(Err(answer.text()));
            }
            let instance = answer.expect(200)?;
            match instance["status"].as_str() {
                Some(is) if is == status => Ok(Ok(instance)),
                Some("ERROR") => anyhow::bail!("{id} is ERROR: {}", instance["status_reason"]),
                _ => Ok(Err(instance.to_string())),
            }
        })
        .await
    }

    /// Deletes an instance and waits until it is DELETED.
    ///
    /// # Errors
    /// It takes too long.
    pub async fn delete(self, id: &str) -> anyhow::Result<()> {
        let deleting = self.0.delete(&format!("/instances/{id}")).await?.expect(200)?;
        let id = deleting["id"].as_str().context("an instance has an id")?;
        self.becomes(id, "DELETED").await.map(|_| ())
    }

    /// What a guest wrote to its serial console so far.
    ///
    /// # Errors
    /// Anything but 200.
    pub async fn log(self, id: &str) -> anyhow::Result<String> {
        let answer = self.0.get(&format!("/instances/{id}/console-log")).await?.expect(200)?;
        Ok(answer["log"].as_str().unwrap_or_default().to_owned())
    }

    /// Waits until a guest has written `text` to its console.
    ///
    /// # Errors
    /// It takes too long; what it wrote is in the error.
    pub async fn says(self, id: &str, text: &str) -> anyhow::Result<()> {
        until(&format!("{id} to say `{text}`"), BOOT, || async {
            let log = self.log(id).await?;
            Ok(if log.contains(text) { Ok(()) } else { Err(log) })
        })
        .await
    }
}
