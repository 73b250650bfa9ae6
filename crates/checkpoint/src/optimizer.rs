//! The state of an optimizer in torch's form: `{"state": {0: {…}, …}, "param_groups": [{…}, …]}`.
//!
//! This is what `torch.optim.Optimizer.state_dict()` returns, and what its `load_state_dict` takes. In safetensors
//! the tensors have dotted names (`state.0.exp_avg`), and the tree around them is kept beside them as text.

use serde_json::{Map, Value as Json, json};
use weighbridge_formats::value::{Dict, DictKind};
use weighbridge_formats::{
    Archive, DType, Data, Error, MemoryArchive, ReadAt, Result, Tensor, Value, ValueId, Values,
};

use crate::json::{push_json, values_to_json};

/// Builds the state of an optimizer: its groups, and for each parameter the step and the moments.
///
/// The options of a group are those of the torch class, with the defaults of torch where they are not set. The order
/// of the parameters is the order in which the model hands them to the optimizer.
///
/// ```
/// use weighbridge_checkpoint::OptimizerState;
/// use weighbridge_formats::{Archive, DType, Data, Tensor};
///
/// # fn main() -> weighbridge_formats::Result<()> {
/// let zeros = vec![0u8; 24];
/// let moment = |name: &str| Tensor::new(name, DType::F32, [2, 3].as_slice(), Data::Borrowed(&zeros));
/// let state = OptimizerState::adam(1e-3)
///     .param("fc.weight", 10, [("exp_avg", moment("")?), ("exp_avg_sq", moment("")?)])
///     .build()?;
/// assert_eq!(state.tensors().len(), 3); // The step is a tensor too, as in torch.
/// # Ok(())
/// # }
/// ```
pub struct OptimizerState<'a> {
    groups: Vec<Group>,
    defaults: Map<String, Json>,
    params: Vec<Param<'a>>,
}

struct Group {
    options: Map<String, Json>,
    params: Vec<usize>,
}

struct Param<'a> {
    name: String,
    /// The step as a tensor: where the algorithm counts steps by parameter.
    step: Option<Data<'a>>,
    tensors: Vec<(&'static str, Tensor<'a>)>,
}

impl<'a> OptimizerState<'a> {
    /// `torch.optim.Adam`: tensors `exp_avg` and `exp_avg_sq`.
    pub fn adam(lr: f64) -> Self {
        Self::with_defaults(json!({
            "lr": lr, "betas": {"$tuple": [0.9, 0.999]}, "eps": 1e-8, "weight_decay": 0, "amsgrad": false,
            "maximize": false, "foreach": null, "capturable": false, "differentiable": false, "fused": null,
            "decoupled_weight_decay": false,
        }))
    }

    /// `torch.optim.AdamW`: as [`OptimizerState::adam`], with decoupled weight decay.
    pub fn adamw(lr: f64) -> Self {
        let mut this = Self::adam(lr);
        this.set("weight_decay", json!(0.01));
        this.set("decoupled_weight_decay", json!(true));
        this
    }

    /// `torch.optim.SGD`: the tensor `momentum_buffer` where there is momentum.
    pub fn sgd(lr: f64, momentum: f64) -> Self {
        Self::with_defaults(json!({
            "lr": lr, "momentum": momentum, "dampening": 0, "weight_decay": 0, "nesterov": false,
            "maximize": false, "foreach": null, "differentiable": false, "fused": null,
        }))
    }

    fn with_defaults(defaults: Json) -> Self {
        let defaults = match defaults {
            Json::Object(map) => map,
            _ => Map::new(),
        };
        let group = Group { options: defaults.clone(), params: Vec::new() };
        Self { groups: vec![group], defaults, params: Vec::new() }
    }

    fn set(&mut self, key: &str, value: Json) {
        if let Some(group) = self.groups.last_mut() {
            group.options.insert(key.into(), value);
        }
    }

    /// Sets an option of the current group, such as `weight_decay`.
    pub fn option(mut self, key: &str, value: impl Into<Json>) -> Self {
        self.set(key, value.into());
        self
    }

    /// Sets the betas of the current group, which torch keeps as a tuple.
    pub fn betas(self, first: f64, second: f64) -> Self {
        self.option("betas", json!({"$tuple": [first, second]}))
    }

    /// Begins another group, with the defaults of the algorithm.
    pub fn group(mut self) -> Self {
        self.groups.push(Group { options: self.defaults.clone(), params: Vec::new() });
        self
    }

    /// Adds a parameter to the current group: how many steps it took, and its tensors. The names of the tensors
    /// themselves do not matter.
    pub fn param(
        mut self,
        name: &str,
        step: u64,
        tensors: impl IntoIterator<Item = (&'static str, Tensor<'a>)>,
    ) -> Self {
        // Torch counts in an f32 of no dimensions.
        let counts = self.defaults.contains_key("betas");
        let step = counts.then(|| Data::Owned((step as f32).to_le_bytes().to_vec().into()));
        if let Some(group) = self.groups.last_mut() {
            group.params.push(self.params.len());
        }
        self.params.push(Param { name: name.to_owned(), step, tensors: tensors.into_iter().collect() });
        self
    }

    /// The archive.
    ///
    /// # Errors
    /// `LimitExceeded` for more than 2³² values.
    pub fn build(self) -> Result<MemoryArchive<'a>> {
        let mut values = Values::new();
        let mut tensors = Vec::new();
        let mut state = Dict::default();
        for (i, param) in self.params.iter().enumerate() {
            let mut own: Vec<(&str, Tensor<'a>)> = Vec::new();
            if let Some(step) = &param.step {
                own.push(("step", Tensor::new("", DType::F32, [].as_slice(), step.clone())?));
            }
            own.extend(param.tensors.iter().map(|(key, tensor)| (*key, tensor.clone())));
            if own.is_empty() {
                continue;
            }
            let mut dict = Dict::default();
            for (key, tensor) in own {
                let info = tensor.info.without_view().with_name(format!("state.{i}.{key}"));
                let key = text(&mut values, key)?;
                let index = u32::try_from(tensors.len()).map_err(|_| Error::limit("too many tensors"))?;
                dict.entries.push((key, values.push(Value::Tensor(index))?));
                tensors.push(Tensor { info, data: tensor.data });
            }
            let key = values.push(Value::Int(i as i64))?;
            state.entries.push((key, values.push(Value::Dict(Box::new(dict)))?));
        }
        let mut groups = Vec::new();
        for group in &self.groups {
            let mut dict = Dict { kind: DictKind::Dict, ..Dict::default() };
            for (key, value) in &group.options {
                let key = text(&mut values, key)?;
                let value = match value.get("$tuple").and_then(Json::as_array) {
                    Some(items) => {
                        let items = items.iter().map(|x| push_json(&mut values, x)).collect::<Result<_>>()?;
                        values.push(Value::Tuple(items))?
                    }
                    None => push_json(&mut values, value)?,
                };
                dict.entries.push((key, value));
            }
            let names: Vec<&str> = group.params.iter().map(|&i| self.params[i].name.as_str()).collect();
            for (key, list) in [("params", json!(group.params)), ("param_names", json!(names))] {
                let key = text(&mut values, key)?;
                dict.entries.push((key, push_json(&mut values, &list)?));
            }
            groups.push(values.push(Value::Dict(Box::new(dict)))?);
        }
        let keys = [text(&mut values, "state")?, text(&mut values, "param_groups")?];
        let parts = [values.push(Value::Dict(Box::new(state)))?, values.push(Value::List(groups))?];
        let root = Dict { entries: keys.into_iter().zip(parts).collect(), ..Dict::default() };
        let root = values.push(Value::Dict(Box::new(root)))?;
        values.set_root(root);
        Ok(MemoryArchive::new(tensors)?.with_values(values))
    }
}

fn text(values: &mut Values, text: &str) -> Result<ValueId> {
    values.push(Value::Str(text.into()))
}

/// What an optimizer keeps of one parameter.
#[derive(Clone, Debug, PartialEq)]
pub struct ParamState {
    /// Its number, which the groups refer to.
    pub index: i64,
    /// Its name, where the groups tell it.
    pub name: Option<String>,
    /// How many steps it took, where the optimizer counts them.
    pub step: Option<f64>,
    /// The tensors, by key (`exp_avg`), as indices into the archive; the step is not among them.
    pub tensors: Vec<(String, usize)>,
}

/// The state of an optimizer, read out of an archive that has torch's form.
#[derive(Clone, Debug, PartialEq)]
pub struct OptimizerView {
    /// The parameters, in the order of the file.
    pub params: Vec<ParamState>,
    /// The groups: every option as JSON, `params` included.
    pub groups: Vec<Json>,
}

impl OptimizerView {
    /// Reads the tree of an archive.
    ///
    /// # Errors
    /// `Malformed` for an archive that is not of torch's form, saying what is missing.
    pub fn new(archive: &dyn Archive) -> Result<Self> {
        let missing = |what: &str| {
            Error::malformed(format!("this is no state of a torch optimizer: {what}"))
                .with_hint("it has the entries `state` and `param_groups`")
        };
        let (values, root) = archive
            .values()
            .and_then(|v| Some((v, v.root()?)))
            .ok_or_else(|| missing("there are tensors alone, and no tree"))?;
        let state = values.entry(root, "state").and_then(|id| values.dict(id));
        let state = state.ok_or_else(|| missing("it has no dict `state`"))?;
        let groups = values.entry(root, "param_groups").and_then(|id| values.sequence(id));
        let groups = groups.ok_or_else(|| missing("it has no list `param_groups`"))?;
        let groups: Vec<Json> =
            groups.iter().map(|&id| values_to_json(archive, values, id, &[])).collect::<Result<_>>()?;
        let mut params = Vec::new();
        for &(key, value) in &state.entries {
            let index = values.int(key).ok_or_else(|| missing("a key of `state` is no number"))?;
            let entries = values.dict(value).ok_or_else(|| missing("an entry of `state` is no dict"))?;
            let mut param = ParamState { index, name: None, step: None, tensors: Vec::new() };
            for &(key, value) in &entries.entries {
                let Some(key) = values.str(key) else { continue };
                match values.get(value) {
                    Value::Tensor(i) if key == "step" => param.step = scalar(archive, *i as usize)?,
                    Value::Int(i) if key == "step" => param.step = Some(*i as f64),
                    Value::Float(x) if key == "step" => param.step = Some(*x),
                    Value::Tensor(i) => param.tensors.push((key.to_owned(), *i as usize)),
                    _ => {}
                }
            }
            params.push(param);
        }
        let mut names = std::collections::HashMap::new();
        for group in &groups {
            let list = |key: &str| group[key].as_array().map(Vec::as_slice).unwrap_or_default();
            for (index, name) in list("params").iter().zip(list("param_names")) {
                if let (Some(index), Some(name)) = (index.as_i64(), name.as_str()) {
                    names.insert(index, name.to_owned());
                }
            }
        }
        params.iter_mut().for_each(|p| p.name = names.get(&p.index).cloned());
        Ok(Self { params, groups })
    }

    /// The state of the parameter of a name.
    pub fn param(&self, name: &str) -> Option<&ParamState> {
        self.params.iter().find(|p| p.name.as_deref() == Some(name))
    }
}

/// The number of a tensor of one element.
fn scalar(archive: &dyn Archive, index: usize) -> Result<Option<f64>> {
    let Some(info) = archive.tensors().get(index).filter(|t| t.elements() == 1) else { return Ok(None) };
    let data = archive.data(index)?;
    let mut bytes = [0; 8];
    let len = info.bytes() as usize;
    let Some(part) = bytes.get_mut(..len) else { return Ok(None) };
    data.read_at(0, part).map_err(|e| e.with_tensor(info.name()))?;
    let [a, b, c, d, ..] = bytes;
    Ok(match info.dtype() {
        DType::F32 => Some(f64::from(f32::from_le_bytes([a, b, c, d]))),
        DType::F64 => Some(f64::from_le_bytes(bytes)),
        DType::I64 => Some(i64::from_le_bytes(bytes) as f64),
        DType::I32 => Some(f64::from(i32::from_le_bytes([a, b, c, d]))),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_built_is_read() {
        let bytes: Vec<u8> = [1.0f32, 2.0].iter().flat_map(|x| x.to_le_bytes()).collect();
        let tensor = || Tensor::new("", DType::F32, [2].as_slice(), Data::Borrowed(&bytes)).unwrap();
        let archive = OptimizerState::adamw(0.5)
            .betas(0.8, 0.9)
            .param("w", 7, [("exp_avg", tensor()), ("exp_avg_sq", tensor())])
            .group()
            .option("weight_decay", 0.25)
            .param("b", 8, [("exp_avg", tensor()), ("exp_avg_sq", tensor())])
            .build()
            .unwrap();
        let view = OptimizerView::new(&archive).unwrap();
        assert_eq!(view.groups.len(), 2);
        assert_eq!(view.groups[0]["betas"], json!([0.8, 0.9]));
        assert_eq!(
            (&view.groups[0]["weight_decay"], &view.groups[1]["weight_decay"]),
            (&json!(0.01), &json!(0.25))
        );
        assert_eq!(view.groups[1]["params"], json!([1]));
        let b = view.param("b").unwrap();
        assert_eq!((b.index, b.step), (1, Some(8.0)));
        assert_eq!(archive.tensors()[b.tensors[1].1].name(), "state.1.exp_avg_sq");
    }

    #[test]
    fn another_tree_is_refused_with_what_is_missing() {
        let archive = MemoryArchive::new([]).unwrap();
        assert!(OptimizerView::new(&archive).unwrap_err().message().contains("no tree"));
        let mut values = Values::new();
        let root = values.push(Value::Dict(Box::default())).unwrap();
        values.set_root(root);
        let archive = MemoryArchive::new([]).unwrap().with_values(values);
        assert!(OptimizerView::new(&archive).unwrap_err().message().contains("no dict `state`"));
    }
}
