//! Faults by their text, and the example configurations.

use super::*;

const EXAMPLES: [&str; 6] = ["minimal", "ab-split", "sidecar", "edge", "standard-release", "full"];

#[test]
fn every_example_configuration_is_good() {
    for name in EXAMPLES {
        let path = format!("{}/config/{name}.toml", env!("CARGO_MANIFEST_DIR"));
        let config = load(path.as_ref()).unwrap_or_else(|faults| panic!("{faults}"));
        let warnings: Vec<_> = config.warnings.iter().map(|warning| warning.path.as_str()).collect();
        let expect: &[&str] = match name {
            "minimal" => &["store"],
            "full" => &["rollouts.chat.jwt.unverified"],
            _ => &[],
        };
        assert_eq!(warnings, expect, "{name}");
    }
}
