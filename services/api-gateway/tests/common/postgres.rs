//! A private PostgreSQL server on a Unix socket, made and removed by the test.

use std::{fs, os::unix::fs::chown, path::PathBuf, process::Command};

/// A PostgreSQL server in a directory of its own.
pub struct Server {
    dir: tempfile::TempDir,
    bin: PathBuf,
}

impl Server {
    /// Makes and starts one, as the user `postgres` (the server refuses to run as root).
    pub fn start() -> Self {
        let mut versions: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
            .expect("PostgreSQL is not installed")
            .map(|e| e.unwrap().path())
            .collect();
        versions.sort();
        let bin = versions.pop().expect("PostgreSQL is not installed").join("bin");
        let dir = tempfile::Builder::new().prefix("cloud-pg-").tempdir().unwrap();
        let ids = Command::new("id").args(["-u", "postgres"]).output().unwrap();
        let uid: u32 = String::from_utf8(ids.stdout).unwrap().trim().parse().expect("there is no user postgres");
        chown(dir.path(), Some(uid), None).unwrap();
        let server = Self { dir, bin };
        server.run("initdb", &["--auth=trust", "--username=cloud", "--no-sync", "-D", &server.path("data")]);
        let options =
            format!("-c listen_addresses='' -c unix_socket_directories={} -c fsync=off", server.dir.path().display());
        server.run("pg_ctl", &["-w", "-D", &server.path("data"), "-l", &server.path("log"), "-o", &options, "start"]);
        server
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn run(&self, program: &str, args: &[&str]) {
        let mut command = Command::new("runuser");
        command.args(["-u", "postgres", "--"]).arg(self.bin.join(program)).args(args).current_dir(self.dir.path());
        // pg_ctl hands its standard output down to the server: a pipe would never end.
        let log =
            fs::File::options().create(true).append(true).open(self.dir.path().join(format!("{program}.out"))).unwrap();
        let status = command.stdout(log.try_clone().unwrap()).stderr(log).status().unwrap();
        assert!(status.success(), "{program}: {}", fs::read_to_string(self.path(&format!("{program}.out"))).unwrap());
    }

    pub fn url(&self) -> String {
        let socket = self.dir.path().display().to_string().replace('/', "%2F");
        format!("postgres://cloud@{socket}/postgres")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.run("pg_ctl", &["-w", "-D", &self.path("data"), "-m", "immediate", "stop"]);
    }
}
