//! Heads that encoders share.

use weighbridge_formats::Result;

use super::Context;
use crate::graph::Value;

impl Context<'_, '_> {
    /// Scores of labels for each token.
    pub(super) fn token_head(&mut self, hidden: &Value, name: &str) -> Result<()> {
        let labels = self.settings.labels()?;
        let logits = self.linear(hidden, name, labels)?;
        self.float_output("logits", &logits)
    }

    /// Scores of each token to be the first and the last of an answer.
    pub(super) fn answer_head(&mut self, hidden: &Value, name: &str) -> Result<()> {
        let logits = self.linear(hidden, name, 2)?;
        for (i, output) in ["start_logits", "end_logits"].into_iter().enumerate() {
            let scores = self.graph.pick(&logits, -1, i as i64)?;
            self.float_output(output, &scores)?;
        }
        Ok(())
    }

    /// A linear layer with a bias, by the name of its module.
    pub(super) fn linear(&mut self, x: &Value, name: &str, out: u64) -> Result<Value> {
        let scope = name.rsplit('.').next().unwrap_or(name).to_owned();
        self.graph
            .scoped(scope, |g| g.linear(x, &format!("{name}.weight"), Some(&format!("{name}.bias")), out))
    }
}
