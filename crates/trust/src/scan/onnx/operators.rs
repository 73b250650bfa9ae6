//! The operators of ONNX and of ONNX Runtime, and what is to be said of others.

use super::super::report::Verdict;

/// ONNX's own operators, through all their versions, with those of its domains for classical models and training.
const STANDARD: &str = "\
    Abs Acos Acosh Adagrad Adam Add Affine AffineGrid And ArgMax ArgMin ArrayFeatureExtractor Asin Asinh \
    Atan Atanh Attention AveragePool BatchNormalization Bernoulli Binarizer BitCast BitShift BitwiseAnd \
    BitwiseNot BitwiseOr BitwiseXor BlackmanWindow Cast CastLike CastMap CategoryMapper CausalConvWithState \
    Ceil Celu CenterCropPad Clip Col2Im Compress Concat ConcatFromSequence Constant ConstantOfShape Conv \
    ConvInteger ConvTranspose Cos Cosh Crop CumProd CumSum DFT DeformConv DepthToSpace DequantizeLinear Det \
    DictVectorizer DisentangledAttention_TRT Div Dropout DynamicQuantizeLinear DynamicSlice EfficientNMS_TRT \
    Einsum Elu Equal Erf Exp Expand EyeLike FeatureVectorizer Flatten FlexAttention Floor GRU GRUUnit Gather \
    GatherElements GatherND Gelu Gemm GivenTensorFill GlobalAveragePool GlobalLpPool GlobalMaxPool Gradient \
    Greater GreaterOrEqual GridSample GroupNormalization HammingWindow HannWindow HardSigmoid HardSwish \
    Hardmax Identity If ImageDecoder ImageScaler Imputer InstanceNormalization IsInf IsNaN LRN LSTM \
    LabelEncoder LayerNormalization LeakyRelu Less LessOrEqual LinearAttention LinearClassifier \
    LinearRegressor Log LogSoftmax Loop LpNormalization LpPool MatMul MatMulInteger Max MaxPool MaxRoiPool \
    MaxUnpool Mean MeanVarianceNormalization MelWeightMatrix MemcpyFromHost MemcpyToHost Min Mish Mod \
    Momentum Mul MultilevelCropAndResize_TRT Multinomial Neg NegativeLogLikelihoodLoss NonMaxSuppression \
    NonZero Normalizer Not OneHot OneHotEncoder Optional OptionalGetElement OptionalHasElement Or PRelu Pad \
    ParametricSoftplus Pow PyramidROIAlign_TRT QLinearConv QLinearMatMul QuantizeLinear RMSNormalization RNN \
    RandomNormal RandomNormalLike RandomUniform RandomUniformLike Range Reciprocal ReduceL1 ReduceL2 \
    ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare \
    RegexFullMatch Relu Reshape Resize ReverseSequence RoiAlign RotaryEmbedding Round STFT SVMClassifier \
    SVMRegressor Scale ScaledTanh Scaler Scan Scatter ScatterElements ScatterND Selu SequenceAt \
    SequenceConstruct SequenceEmpty SequenceErase SequenceInsert SequenceLength SequenceMap Shape Shrink \
    Sigmoid Sign SimplifiedLayerNormalization Sin Sinh Size Slice Softmax SoftmaxCrossEntropyLoss Softplus \
    Softsign SpaceToDepth Split SplitToSequence Sqrt Squeeze StringConcat StringNormalizer StringSplit Sub \
    Sum SwiGLU Swish Tan Tanh TensorScatter TfIdfVectorizer ThresholdedRelu Tile TopK Transpose TreeEnsemble \
    TreeEnsembleClassifier TreeEnsembleRegressor Trilu Unique Unsqueeze Upsample Where Xor ZipMap";

/// Those that ONNX Runtime adds, without the ones that hand a part of the graph to another library.
const RUNTIME: &str = "\
    Attention AttnLSTM AveragePool BatchNormalization BeamSearch BiasAdd BiasDropout BiasGelu BiasSoftmax \
    BiasSplitGelu BifurcationDetector BitmaskBiasDropout BitmaskDropout BranchwiseRMSNorm CDist \
    CausalConvWithState ComplexMul ComplexMulConj Conv ConvTranspose ConvTransposeWithDynamicPads \
    CropAndResize DecoderAttention DecoderMaskedMultiHeadAttention DecoderMaskedSelfAttention DepthToSpace \
    DequantizeBFP DequantizeLinear DequantizeWithOrder DynamicQuantizeLSTM DynamicQuantizeMatMul \
    DynamicSparseAttention DynamicTimeWarping EmbedLayerNormalization EngramGate ExpandDims FastGelu \
    FusedConv FusedGemm FusedMatMul FusedMatMulActivation GatedAdd GatedDeltaNet GatedRMSNorm \
    GatedRelativePositionBias GatherBlockQuantized GatherND Gelu GemmFastGelu GemmFloat8 \
    GemmaRotaryEmbedding GlobalAveragePool GlobalLpPool GlobalMaxPool GreedySearch GridSample GroupNorm \
    GroupQueryAttention HyperConnectionPostMix HyperConnectionPreMix InstanceNormalization Inverse Irfft \
    IsAllFinite LRN LinearAttention LinearAttentionGate LongformerAttention LpPool MRotaryEmbedding \
    MatMulBlockQuantizedFp4Weight MatMulBlockQuantizedFp8Weight MatMulBnb4 MatMulFpQ4 MatMulInteger16 \
    MatMulIntegerToFloat MatMulNBits MatMulNBitsMlp MatMulNBitsQkv MaxPool MaxUnpool MaxpoolWithMask MoE \
    MulInteger MultiHeadAttention MurmurHash3 NGramHashMapping NGramRepeatBlock NhwcConv NhwcFusedConv \
    NhwcMaxPool PackedAttention PackedMultiHeadAttention PackedSparseAttentionIndexer Pad PagedAttention \
    QAttention QEmbedLayerNormalization QGemm QLinearAdd QLinearAveragePool QLinearConcat QLinearConv \
    QLinearConvTranspose QLinearGlobalAveragePool QLinearLeakyRelu QLinearMul QLinearReduceMean \
    QLinearSigmoid QLinearSoftmax QLinearWhere QMoE QOrderedAttention QOrderedGelu \
    QOrderedLayerNormalization QOrderedLongformerAttention QOrderedMatMul QuantizeBFP QuantizeLinear \
    QuantizeWithOrder QuickGelu Range ReduceSumInteger RelativePositionBias RemovePadding ReorderInput \
    ReorderOutput Resize RestorePadding Rfft RotaryEmbedding SampleOp Sampling ScaledSiLU SkipGroupNorm \
    SkipLayerNormalization SkipSimplifiedLayerNormalization SpaceToDepth SparseAttention \
    SparseAttentionIndexer SparsePagedAttention SparseToDenseMatMul Tokenizer TorchEmbedding TransposeMatMul \
    Trilu UnfoldTensor Unique Upsample VarlenCausalConvWithState VarlenNGramHashMapping WhisperBeamSearch \
    WordConvEmbedding";

/// Domains of ONNX itself.
const STANDARD_DOMAINS: &[&str] =
    &["", "ai.onnx", "ai.onnx.ml", "ai.onnx.preview", "ai.onnx.preview.training", "ai.onnx.training"];
/// Domains of ONNX Runtime.
const RUNTIME_DOMAINS: &[&str] =
    &["com.microsoft", "com.microsoft.experimental", "com.microsoft.nchwc", "com.ms.internal.nhwc"];

/// What is to be said of an operator that the model does not define itself; nothing of a known one.
pub(super) fn judge(domain: &str, operator: &str) -> Option<(Verdict, &'static str)> {
    let holds = |list: &str| list.split(' ').any(|o| o == operator) && !operator.is_empty();
    if STANDARD_DOMAINS.contains(&domain) && holds(STANDARD)
        || RUNTIME_DOMAINS.contains(&domain) && holds(RUNTIME)
    {
        return None;
    }
    // Python by name: ONNX Runtime's extensions and its training build.
    let python = operator.starts_with("Py") && operator.contains("Op") || operator.starts_with("PythonOp");
    Some(if python {
        (Verdict::Dangerous, "it calls a Python function of the process")
    } else if operator == "EPContext" || operator == "Snpe" {
        (Verdict::Unknown, "it hands a compiled program to a vendor's library")
    } else if STANDARD_DOMAINS.contains(&domain) {
        (Verdict::Unknown, "ONNX has no such operator; what runs it is a library of someone's")
    } else {
        (Verdict::Unknown, "it is neither ONNX's nor ONNX Runtime's; what runs it is a library of someone's")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_are_known_by_domain_and_name() {
        for (domain, name) in
            [("", "MatMul"), ("ai.onnx", "If"), ("ai.onnx.ml", "TreeEnsemble"), ("com.microsoft", "Gelu")]
        {
            assert_eq!(judge(domain, name), None, "{domain}.{name}");
        }
        for (domain, name) in [
            ("ai.onnx.contrib", "PyOp"),
            ("ai.onnx.contrib", "PyCustomOpDef_1"),
            ("com.microsoft", "PythonOp"),
            ("", "PyOp"),
        ] {
            assert!(matches!(judge(domain, name), Some((Verdict::Dangerous, _))), "{domain}.{name}");
        }
        for (domain, name) in [
            ("my.domain", "MatMul"),
            ("", "Custom"),
            ("", ""),
            ("com.microsoft", "EPContext"),
            ("com.microsoft", "MatMul Gelu"),
        ] {
            assert!(matches!(judge(domain, name), Some((Verdict::Unknown, _))), "{domain}.{name}");
        }
    }
}
