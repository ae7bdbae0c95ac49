from .contracts.cost import (
    Sizes as Sizes,
    TokenCount as TokenCount,
    count_shuffled_tokens as count_shuffled_tokens,
    count_tokens as count_tokens,
)
from .contracts.metric import mean_over_sequences as mean_over_sequences
from .data.corpora import Corpus as Corpus, Document as Document, open_corpus as open_corpus
from .data.sets import (
    SequenceSource as SequenceSource,
    sequences_fingerprint as sequences_fingerprint,
)
from .data.settings import SequenceSettings as SequenceSettings
from .data.tokenization import Bounds as Bounds, Pair as Pair, Tokenization as Tokenization
from .editing.edits import gradients_of as gradients_of, groups_within as groups_within, matrices_of as matrices_of
from .editing.selection import Largest as Largest, count_for as count_for, select_largest as select_largest
from .errors import nearest as nearest
from .evaluation import (
    ExtractionCheck as ExtractionCheck,
    Generated as Generated,
    Probe as Probe,
    TeacherForced as TeacherForced,
)
from .files.cached import CacheEntry as CacheEntry
from .files.places import located as located
from .models.source import (
    ModelLoading as ModelLoading,
    ModelSource as ModelSource,
    OpenedModel as OpenedModel,
    model_fingerprint as model_fingerprint,
    open_model as open_model,
)
from .models.testbeds import testbed_of as testbed_of
from .training.checkpoint import Checkpoint as Checkpoint
from .training.loop import TrainingReport as TrainingReport, train as train
from .training.losses import TokenLosses as TokenLosses, token_losses as token_losses
from .unlearning.activations import neuron_activations as neuron_activations
from .unlearning.gates import gate_cost as gate_cost, gate_gradients as gate_gradients
from .unlearning.neurons import missing_layout as missing_layout
from .unlearning.objective import (
    Term as Term,
    sampled_rows as sampled_rows,
    shuffled_rows as shuffled_rows,
    visit_objective_gradients as visit_objective_gradients,
)
from .unlearning.per_sequence import visit_sequence_gradients as visit_sequence_gradients
from .unlearning.replay import (
    Recording as Recording,
    Replay as Replay,
    Span as Span,
    outgoing_rows as outgoing_rows,
    recording_cost as recording_cost,
    rerun_numbers as rerun_numbers,
)
from .unlearning.subnet import EpochSize as EpochSize, MaskLearning as MaskLearning, SubnetConfig as SubnetConfig
from .unlearning.weights import (
    mlp_gradients as mlp_gradients,
)
