"""Architectures; each file follows the table in its paper."""

from jaxnets.models.alexnet import alexnet, alexnet_2012
from jaxnets.models.attentive import attentive_encoder_decoder, pointer_generator
from jaxnets.models.autoencoder import autoencoder, conv_autoencoder, denoising_autoencoder
from jaxnets.models.bert import bert
from jaxnets.models.boltzmann.dbm import dbm, dbm_gibbs_step, mean_field, mean_field_learning, variational_bound
from jaxnets.models.boltzmann.dbn import dbn, dbn_sample, dbn_stages, dbn_to_mlp
from jaxnets.models.boltzmann.rbm import contrastive_divergence, free_energy, gibbs_step, rbm, reconstruct
from jaxnets.models.cnn import cnn
from jaxnets.models.conditional_unet import conditional_unet
from jaxnets.models.convnext import convnext_tiny
from jaxnets.models.densenet import densenet121
from jaxnets.models.efficientnet import efficientnet_b0
from jaxnets.models.fcn import fcn
from jaxnets.models.fcos import detect, fcos
from jaxnets.models.flow_matching import flow_matching
from jaxnets.models.gan import dcgan, gan
from jaxnets.models.googlenet import googlenet, googlenet_2014
from jaxnets.models.gpt2 import gpt2
from jaxnets.models.inception import inception_v3
from jaxnets.models.inception_resnet import inception_resnet_v2
from jaxnets.models.inception_v2 import inception_v2
from jaxnets.models.inception_v4 import inception_v4
from jaxnets.models.landmarks import landmarks, soft_argmax
from jaxnets.models.language_model import language_model
from jaxnets.models.lenet import lenet5, lenet5_1998
from jaxnets.models.linear import linear
from jaxnets.models.llama import llama
from jaxnets.models.mlp import mlp
from jaxnets.models.mobilenet import mobilenet_v2
from jaxnets.models.perceptron import perceptron
from jaxnets.models.recognizer import conv_gru, conv_transformer
from jaxnets.models.recurrent import gru, lstm, rnn
from jaxnets.models.resnet import (
    resnet18,
    resnet34,
    resnet50,
    resnet101,
    resnet152,
    resnext50_32x4d,
    resnext101_32x8d,
    resnext101_64x4d,
    wide_resnet50_2,
    wide_resnet101_2,
)
from jaxnets.models.resnet_cifar import plain_cifar, resnet_cifar
from jaxnets.models.resnet_v2 import resnet18_v2, resnet34_v2, resnet50_v2, resnet101_v2, resnet152_v2
from jaxnets.models.sentences import sentence_encoder, siamese
from jaxnets.models.sequence_to_sequence import encoder_decoder
from jaxnets.models.transformer import transformer
from jaxnets.models.unet import unet
from jaxnets.models.vae import conv_vae, vae, variational
from jaxnets.models.vgg import vgg11, vgg13, vgg16, vgg19
from jaxnets.models.video import frame_predictor
from jaxnets.models.visual_questions import visual_questions
from jaxnets.models.vit import deit_tiny, resize_positions, vit_b_16, vit_b_32, vit_l_16

__all__ = [
    "alexnet",
    "alexnet_2012",
    "attentive_encoder_decoder",
    "autoencoder",
    "bert",
    "cnn",
    "conditional_unet",
    "contrastive_divergence",
    "conv_autoencoder",
    "conv_gru",
    "conv_transformer",
    "conv_vae",
    "convnext_tiny",
    "dbm",
    "dbm_gibbs_step",
    "dbn",
    "dbn_sample",
    "dbn_stages",
    "dbn_to_mlp",
    "dcgan",
    "deit_tiny",
    "denoising_autoencoder",
    "densenet121",
    "detect",
    "efficientnet_b0",
    "encoder_decoder",
    "fcn",
    "fcos",
    "flow_matching",
    "frame_predictor",
    "free_energy",
    "gan",
    "gibbs_step",
    "googlenet",
    "googlenet_2014",
    "gpt2",
    "gru",
    "inception_resnet_v2",
    "inception_v2",
    "inception_v3",
    "inception_v4",
    "landmarks",
    "language_model",
    "lenet5",
    "lenet5_1998",
    "linear",
    "llama",
    "lstm",
    "mean_field",
    "mean_field_learning",
    "mlp",
    "mobilenet_v2",
    "perceptron",
    "plain_cifar",
    "pointer_generator",
    "rbm",
    "reconstruct",
    "resize_positions",
    "resnet18",
    "resnet18_v2",
    "resnet34",
    "resnet34_v2",
    "resnet50",
    "resnet50_v2",
    "resnet101",
    "resnet101_v2",
    "resnet152",
    "resnet152_v2",
    "resnet_cifar",
    "resnext50_32x4d",
    "resnext101_32x8d",
    "resnext101_64x4d",
    "rnn",
    "sentence_encoder",
    "siamese",
    "soft_argmax",
    "transformer",
    "unet",
    "vae",
    "variational",
    "variational_bound",
    "vgg11",
    "vgg13",
    "vgg16",
    "vgg19",
    "visual_questions",
    "vit_b_16",
    "vit_b_32",
    "vit_l_16",
    "wide_resnet50_2",
    "wide_resnet101_2",
]
