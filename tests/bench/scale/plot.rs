//! How the figures of a scale benchmark grow with the number of hosts, as a picture.

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use plotters::{
    chart::{ChartBuilder, SeriesLabelPosition},
    coord::combinators::IntoLogRange as _,
    drawing::IntoDrawingArea as _,
    element::{Circle, PathElement},
    prelude::{Color as _, RGBColor, SVGBackend, WHITE},
    series::LineSeries,
};
use serde::{Deserialize, Serialize};

/// Draws what `scale --csv` wrote.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// What to draw.
    csv: PathBuf,
    /// Where to.
    svg: PathBuf,
}

/// What was measured of one size on one database. Times in milliseconds, memory in MB, processors in hundredths of a core.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Figures {
    /// `sqlite` or `postgres`.
    pub database: String,
    /// Simulated hosts.
    pub hosts: usize,
    /// Instances on them before the load.
    pub instances: usize,
    /// Launches per second that were asked for.
    pub rate: u32,
    /// Launches per second that came to run.
    pub running: f64,
    /// A restarted gateway answers.
    pub ready: f64,
    /// It has looked at all hosts.
    pub verified: f64,
    /// Processor while nothing is asked.
    pub idle: f64,
    /// `LaunchInstance`, p99.
    pub launch: f64,
    /// `GetInstance`, p99 under that load.
    pub get: f64,
    /// `ListInstances`, p99 under that load.
    pub list: f64,
    /// Memory after that load.
    pub memory: f64,
}

impl Figures {
    /// Adds them to a file; the first ones with the names of the columns.
    pub fn append(&self, path: &Path) -> anyhow::Result<()> {
        let file = File::options().create(true).append(true).open(path)?;
        let is_new = file.metadata()?.len() == 0;
        let mut writer = csv::WriterBuilder::new().has_headers(is_new).from_writer(file);
        writer.serialize(self)?;
        Ok(writer.flush()?)
    }
}

const COLOURS: [(&str, RGBColor); 2] = [("sqlite", RGBColor(31, 119, 180)), ("postgres", RGBColor(214, 39, 40))];

type Panel = (&'static str, fn(&Figures) -> f64);
const PANELS: [Panel; 6] = [
    ("idle: % of a core", |f| f.idle),
    ("memory after the load, MB", |f| f.memory),
    ("restart to all hosts verified, ms", |f| f.verified),
    ("LaunchInstance p99, ms", |f| f.launch),
    ("GetInstance p99 meanwhile, ms", |f| f.get),
    ("ListInstances p99 meanwhile, ms", |f| f.list),
];

/// Draws a panel for each figure, with a line for each database.
pub fn draw(args: &Args) -> anyhow::Result<()> {
    let rows: Vec<Figures> = csv::Reader::from_path(&args.csv)?.deserialize().collect::<Result<_, _>>()?;
    let sizes = || rows.iter().map(|row| row.hosts);
    let (least, most) = (sizes().min().context("nothing was measured")?, sizes().max().unwrap_or_default());
    let area = SVGBackend::new(&args.svg, (1080, 620)).into_drawing_area();
    area.fill(&WHITE)?;
    for (panel, (title, value)) in area.split_evenly((2, 3)).iter().zip(PANELS) {
        let top = rows.iter().map(value).fold(0.0, f64::max) * 1.1;
        #[allow(clippy::cast_precision_loss, reason = "numbers of hosts")]
        let hosts = |row: &Figures| row.hosts as f64;
        #[allow(clippy::cast_precision_loss, reason = "numbers of hosts")]
        let range = (least as f64..most as f64).log_scale();
        let mut chart = ChartBuilder::on(panel)
            .caption(title, ("sans-serif", 15))
            .margin(10)
            .margin_right(20)
            .x_label_area_size(35)
            .y_label_area_size(45)
            .build_cartesian_2d(range, 0.0..top)?;
        let whole = |number: &f64| format!("{number:.0}");
        chart
            .configure_mesh()
            .x_desc("hosts")
            .x_label_formatter(&whole)
            .y_label_formatter(&whole)
            .light_line_style(WHITE)
            .draw()?;
        for (database, colour) in COLOURS {
            let mut points: Vec<_> =
                rows.iter().filter(|row| row.database == database).map(|row| (hosts(row), value(row))).collect();
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            if points.is_empty() {
                continue;
            }
            chart.draw_series(points.iter().map(|point| Circle::new(*point, 3, colour.filled())))?;
            chart
                .draw_series(LineSeries::new(points, colour.stroke_width(2)))?
                .label(database)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 15, y)], colour.stroke_width(2)));
        }
        chart.configure_series_labels().position(SeriesLabelPosition::UpperLeft).border_style(WHITE).draw()?;
    }
    Ok(area.present()?)
}
