//! What Keras' own namespaces hold: classes that are built from numbers and text, and functions of tensors.
//!
//! Names of Keras 3 and of Keras 2 (`tf.keras`), each list in order. What is left out on purpose: layers that run code
//! or load files (`Lambda`, `TFSMLayer`, `TorchModuleWrapper`, `JaxLayer`, `TFOpLambda`), which have rules of their own,
//! and functions that take functions or configurations.

/// Layers, models, losses, metrics, optimizers, schedules, initializers, regularizers, constraints, policies.
static CLASSES: &str = "\
    AUC AWQDTypePolicy AbsMaxQuantizer AbstractRNNCell Accuracy Activation ActivityRegularization \
    Adadelta Adafactor Adagrad Adam AdamW Adamax AdaptiveAveragePooling1D AdaptiveAveragePooling2D \
    AdaptiveAveragePooling3D AdaptiveMaxPooling1D AdaptiveMaxPooling2D AdaptiveMaxPooling3D Add AddLoss \
    AddMetric AdditiveAttention AlphaDropout AtrousConvolution1D AtrousConvolution2D Attention AugMix \
    AutoContrast Average AveragePooling1D AveragePooling2D AveragePooling3D AvgPool1D AvgPool2D \
    AvgPool3D BaseAdaptiveAveragePooling BaseAdaptiveMaxPooling BaseAdaptivePooling BaseConv \
    BaseConvTranspose BaseDenseAttention BaseDepthwiseConv BaseGlobalPooling BaseImagePreprocessingLayer \
    BasePooling BaseRandomLayer BaseSeparableConv BaseSpatialDropout BatchNormalization \
    BatchNormalizationBase BatchNormalizationV1 BatchNormalizationV2 Bias Bidirectional BinaryAccuracy \
    BinaryCrossentropy BinaryFocalCrossentropy BinaryIoU CTC CategoricalAccuracy CategoricalCrossentropy \
    CategoricalFocalCrossentropy CategoricalGeneralizedCrossEntropy CategoricalHinge CategoryEncoding \
    CenterCrop Circle CompileLoss CompileMetrics Concatenate ConcordanceCorrelation Constant ConstantV2 \
    Constraint ContrastLimitedAdaptiveHistogramEqualization Conv Conv1D Conv1DTranspose Conv2D \
    Conv2DTranspose Conv3D Conv3DTranspose ConvLSTM ConvLSTM1D ConvLSTM2D ConvLSTM3D ConvLSTMCell \
    ConvRNN Convolution1D Convolution1DTranspose Convolution2D Convolution2DTranspose Convolution3D \
    Convolution3DTranspose CosineDecay CosineDecayRestarts CosineSimilarity Cropping1D Cropping2D \
    Cropping3D Cross CuDNNGRU CuDNNLSTM CutMix DTypePolicy DTypePolicyMap Dense DenseFeatures \
    DepthwiseConv DepthwiseConv1D DepthwiseConv2D Dice Discretization Distiller Dot Dropout \
    DropoutWrapper DynamicEmbedding ELU EinsumDense Embedding Equalization ExponentialDecay F1Score \
    FBetaScore FalseNegatives FalsePositives Feature FeatureSpace Flatten FloatDTypePolicy Ftrl \
    Functional GPTQDTypePolicy GPTQQuantizer GRU GRUCell GRUCellV1 GRUCellV2 GRUV1 GRUV2 GaussianDropout \
    GaussianNoise GlobalAveragePooling1D GlobalAveragePooling2D GlobalAveragePooling3D GlobalAvgPool1D \
    GlobalAvgPool2D GlobalAvgPool3D GlobalMaxPool1D GlobalMaxPool2D GlobalMaxPool3D GlobalMaxPooling1D \
    GlobalMaxPooling2D GlobalMaxPooling3D GlobalPooling1D GlobalPooling2D GlobalPooling3D GlorotNormal \
    GlorotNormalV2 GlorotUniform GlorotUniformV2 GroupNormalization GroupQueryAttention \
    GroupedQueryAttention HashedCrossing Hashing HeNormal HeNormalV2 HeUniform HeUniformV2 Highway Hinge \
    Huber Identity IdentityInitializer IdentityV2 IndexLookup Initializer InputLayer Int4DTypePolicy \
    IntegerLookup InverseTimeDecay IoU KLDivergence L1 L1L2 L2 LSTM LSTMCell LSTMCellV1 LSTMCellV2 \
    LSTMV1 LSTMV2 Lamb Layer LayerNormalization LeakyReLU LearningRateSchedule LecunNormal LecunNormalV2 \
    LecunUniform LecunUniformV2 LinearCosineDecay LinearModel Lion LocallyConnected1D LocallyConnected2D \
    LogCosh LogCoshError Loss LossFunctionWrapper LossScaleOptimizer LossScaleOptimizerV3 \
    LossesContainer Masking MaxNorm MaxNumBoundingBoxes MaxPool1D MaxPool2D MaxPool3D MaxPooling1D \
    MaxPooling2D MaxPooling3D Maximum MaxoutDense Mean MeanAbsoluteError MeanAbsolutePercentageError \
    MeanIoU MeanMetricWrapper MeanRelativeError MeanSquaredError MeanSquaredLogarithmicError MeanTensor \
    MelSpectrogram Merge Metric MetricsContainer MetricsList MinMaxNorm Minimum MixUp Model \
    MultiHeadAttention MultiOptimizer Multiply Muon Nadam NoisyLinearCosineDecay NonFusedAdam NonNeg \
    Normalization OneHotIoU OneHotMeanIoU Ones OnesV2 Optimizer OptimizerV2 Orthogonal \
    OrthogonalInitializer OrthogonalRegularizer OrthogonalV2 PReLU PearsonCorrelation Permute \
    PiecewiseConstantDecay Pipeline Poisson Policy PolynomialDecay Pooling1D Pooling2D Pooling3D \
    Precision PrecisionAtRecall PreprocessingLayer QuantizedDTypePolicy QuantizedFloat8DTypePolicy \
    Quantizer R2Score RMSNormalization RMSProp RMSprop RNN RadialConstraint RaggedTensorSpec RandAugment \
    RandomBrightness RandomColorDegeneration RandomColorJitter RandomContrast RandomCrop \
    RandomElasticTransform RandomErasing RandomFlip RandomFourierFeatures RandomGaussianBlur \
    RandomGrayscale RandomHeight RandomHue RandomInitializer RandomInvert RandomNormal RandomNormalV2 \
    RandomPerspective RandomPosterization RandomRotation RandomSaturation RandomSharpness RandomShear \
    RandomTranslation RandomUniform RandomUniformV2 RandomWidth RandomZoom ReLU Recall RecallAtPrecision \
    Reduce Regularizer Rename RepeatVector Rescaling Reshape ResidualWrapper Resizing \
    ReversibleEmbedding RootMeanSquaredError SGD SReLU STFT STFTInitializer STFTSpectrogram \
    ScheduleFreeAdamW SeedGenerator SensitivityAtSpecificity SensitivitySpecificityBase SeparableConv \
    SeparableConv1D SeparableConv2D SeparableConvolution1D SeparableConvolution2D SequenceFeatures \
    Sequential SharpnessAwareMinimization SimpleRNN SimpleRNNCell Softmax Solarization \
    SparseCategoricalAccuracy SparseCategoricalCrossentropy SparseTensorSpec \
    SparseTopKCategoricalAccuracy SpatialDropout1D SpatialDropout2D SpatialDropout3D \
    SpecificityAtSensitivity SpectralNormalization SquaredHinge StackedRNNCells StringLookup Subtract \
    Sum SumOverBatchSize SumOverBatchSizeMetricWrapper SyncBatchNormalization TFDConcat TFDIdentity \
    TensorSpec TextVectorization ThresholdedReLU TimeDistributed TimeDistributedDense \
    TopKCategoricalAccuracy TrueNegatives TruePositives TruncatedNormal TruncatedNormalV2 Tversky \
    UnitNorm UnitNormalization UpSampling1D UpSampling2D UpSampling3D Variable VarianceScaling \
    VarianceScalingV2 WideDeepModel Wrapper ZeroPadding1D ZeroPadding2D ZeroPadding3D Zeros ZerosV2 \
    constant glorot_normal glorot_normalV2 glorot_uniform glorot_uniformV2 he_normal he_normalV2 \
    he_uniform he_uniformV2 identity initializer l1 l1_l2 l2 lecun_normal lecun_normalV2 lecun_uniform \
    lecun_uniformV2 max_norm maxnorm min_max_norm non_neg nonneg normal one ones orthogonal \
    orthogonal_regularizer radial_constraint random_normal random_uniform stft truncated_normal uniform \
    unit_norm unitnorm variance_scaling zero zeros";

/// Activations, losses, metrics and operations on tensors.
static FUNCTIONS: &str = "\
    KLD MAE MAPE MSE MSLE abs absolute adaptive_average_pool adaptive_max_pool add affine_transform all \
    allclose amax amin angle any append arange arccos arccosh arcsin arcsinh arctan arctan2 arctanh \
    argmax argmin argpartition argsort array array_split associative_scan average average_pool bartlett \
    batch_normalization binary_accuracy binary_crossentropy binary_focal_crossentropy bincount \
    bitwise_and bitwise_invert bitwise_left_shift bitwise_not bitwise_or bitwise_right_shift bitwise_xor \
    blackman broadcast_to cast categorical_accuracy categorical_crossentropy \
    categorical_focal_crossentropy categorical_generalized_cross_entropy categorical_hinge cbrt cdist \
    ceil celu cholesky cholesky_inverse circle clip concatenate concordance_correlation cond conj \
    conjugate conv conv_transpose convert_to_numpy convert_to_tensor copy corrcoef correlate cos cosh \
    cosine_similarity count_nonzero crop_images cross ctc ctc_decode ctc_loss cumprod cumsum deg2rad \
    depth_to_space depthwise_conv det diag diagflat diagonal dice diff digitize divide divide_no_nan dot \
    dot_product_attention dsplit dstack dtype eig eigh einsum elastic_transform elu empty empty_like \
    equal erf erfc erfinv exp exp2 expand_dims expm1 exponential extract_patches extract_patches_3d \
    extract_sequences eye fabs fft fft2 flip fliplr flipud floor floor_divide fmax fmin fmod fold \
    fori_loop full full_like gaussian_blur gcd gelu geomspace get_item glu greater greater_equal hamming \
    hanning hard_shrink hard_sigmoid hard_silu hard_swish hard_tanh heaviside hinge histogram hsplit \
    hstack hsv_to_rgb huber hypot i0 identity ifft2 imag in_top_k inner inv irfft is_tensor isclose \
    isfinite isin isinf isnan isneginf isposinf isreal istft jvp kaiser kl_divergence kld kron \
    kullback_leibler_divergence l1_l2 layer_normalization lcm ldexp leaky_relu left_shift less \
    less_equal linear linspace log log10 log1p log2 log_cosh log_sigmoid log_softmax logaddexp \
    logaddexp2 logcosh logdet logical_and logical_not logical_or logical_xor logspace logsumexp lstsq \
    lu_factor mae map_coordinates mape matmul matrix_rank max max_pool maximum mean mean_absolute_error \
    mean_absolute_percentage_error mean_squared_error mean_squared_logarithmic_error median meshgrid min \
    minimum mish mod moments moveaxis mse msle multi_hot multiply nan_to_num nanargmax nanargmin \
    nancumprod nancumsum nanmax nanmean nanmedian nanmin nanpercentile nanprod nanquantile nanstd nansum \
    nanvar ndim negative nextafter nonzero norm normalize not_equal one_hot ones ones_like outer pad \
    pad_images pearson_correlation percentile perspective_transform pinv poisson polar power prod psnr \
    ptp qr quantile rad2deg ravel real rearrange reciprocal relu relu6 repeat reshape resize rfft \
    rgb_to_grayscale rgb_to_hsv right_shift rms_normalization roll rot90 round rsqrt saturate_cast \
    scale_and_translate scan scatter scatter_update searchsorted segment_max segment_min segment_prod \
    segment_sum select selu separable_conv shape sigmoid sign signbit silu sin sinc sinh size slice \
    slice_update slogdet sobel_edges soft_shrink softmax softplus softsign solve solve_triangular sort \
    space_to_depth sparse_categorical_accuracy sparse_categorical_crossentropy sparse_plus \
    sparse_sigmoid sparse_top_k_categorical_accuracy sparsemax split sqrt square squared_hinge \
    squareplus squeeze ssim stack std stft stop_gradient subtract sum svd swapaxes swish switch take \
    take_along_axis tan tanh tanh_shrink tensordot threshold tile top_k top_k_categorical_accuracy trace \
    transpose trapezoid tri tril triu true_divide trunc tversky unfold unique unravel_index unstack \
    vander var vdot view view_as_complex view_as_real vsplit vstack where while_loop zeros zeros_like";

/// Whether a word is in a list of words.
fn holds(list: &str, word: &str) -> bool {
    !word.is_empty() && list.split(' ').any(|w| w == word)
}

/// Whether Keras has a class of that name that does no more than its configuration says.
pub(super) fn is_class(name: &str) -> bool {
    holds(CLASSES, name)
}

/// Whether Keras has a function of that name that does no more than to compute.
pub(super) fn is_function(name: &str) -> bool {
    holds(FUNCTIONS, name) || holds(CLASSES, name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lists_know_what_models_use_and_nothing_that_runs_code() {
        for name in
            ["Dense", "Functional", "Sequential", "Adam", "GlorotUniform", "Conv2D", "L2", "DTypePolicy"]
        {
            assert!(is_class(name), "{name}");
        }
        for name in
            ["Lambda", "TFSMLayer", "TorchModuleWrapper", "TFOpLambda", "JaxLayer", "", "Dense Conv2D"]
        {
            assert!(!is_class(name) && !is_function(name), "{name}");
        }
        assert!(is_function("relu") && is_function("mean_squared_error") && is_function("glorot_uniform"));
        for name in ["get_file", "deserialize", "load_model", "eval", "run_code"] {
            assert!(!is_function(name), "{name}");
        }
    }
}
