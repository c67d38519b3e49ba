"""The publications that a Methods section cites: how they are written, and where they are found."""

from typing import NamedTuple


class Reference(NamedTuple):
    """A publication, with its DOI as a link or, without one, the publisher's page."""

    text: str
    url: str


def _doi(text: str, doi: str) -> Reference:
    return Reference(text, f"https://doi.org/{doi}")


def _arxiv(text: str, number: str) -> Reference:
    return _doi(f"{text} arXiv:{number}.", f"10.48550/arXiv.{number}")


REFERENCES: dict[str, Reference] = {
    # networks
    "unet": _doi(
        "Ronneberger O, Fischer P, Brox T (2015). U-Net: convolutional networks for biomedical image segmentation. "
        "MICCAI 2015, LNCS 9351, 234-241.",
        "10.1007/978-3-319-24574-4_28",
    ),
    "unet3d": _doi(
        "Çiçek Ö, Abdulkadir A, Lienkamp SS, Brox T, Ronneberger O (2016). 3D U-Net: learning dense volumetric "
        "segmentation from sparse annotation. MICCAI 2016, LNCS 9901, 424-432.",
        "10.1007/978-3-319-46723-8_49",
    ),
    "resnet": _doi(
        "He K, Zhang X, Ren S, Sun J (2016). Deep residual learning for image recognition. CVPR 2016, 770-778.",
        "10.1109/CVPR.2016.90",
    ),
    "vgg": _arxiv(
        "Simonyan K, Zisserman A (2015). Very deep convolutional networks for large-scale image recognition. "
        "ICLR 2015.",
        "1409.1556",
    ),
    "nnunet": _doi(
        "Isensee F, Jaeger PF, Kohl SAA, Petersen J, Maier-Hein KH (2021). nnU-Net: a self-configuring method for "
        "deep learning-based biomedical image segmentation. Nature Methods 18, 203-211.",
        "10.1038/s41592-020-01008-z",
    ),
    "batch": _arxiv(
        "Ioffe S, Szegedy C (2015). Batch normalization: accelerating deep network training by reducing internal "
        "covariate shift. ICML 2015.",
        "1502.03167",
    ),
    "instance": _arxiv(
        "Ulyanov D, Vedaldi A, Lempitsky V (2016). Instance normalization: the missing ingredient for fast "
        "stylization.",
        "1607.08022",
    ),
    "group": _doi(
        "Wu Y, He K (2018). Group normalization. ECCV 2018, LNCS 11217, 3-19.", "10.1007/978-3-030-01261-8_1"
    ),
    "deep-supervision": Reference(
        "Lee CY, Xie S, Gallagher P, Zhang Z, Tu Z (2015). Deeply-supervised nets. AISTATS 2015, PMLR 38, 562-570.",
        "https://proceedings.mlr.press/v38/lee15a.html",
    ),
    "dropout": Reference(
        "Srivastava N, Hinton G, Krizhevsky A, Sutskever I, Salakhutdinov R (2014). Dropout: a simple way to prevent "
        "neural networks from overfitting. Journal of Machine Learning Research 15, 1929-1958.",
        "https://jmlr.org/papers/v15/srivastava14a.html",
    ),
    "spatial-dropout": _doi(
        "Tompson J, Goroshin R, Jain A, LeCun Y, Bregler C (2015). Efficient object localization using convolutional "
        "networks. CVPR 2015, 648-656.",
        "10.1109/CVPR.2015.7298664",
    ),
    # initial weights
    "kaiming": _doi(
        "He K, Zhang X, Ren S, Sun J (2015). Delving deep into rectifiers: surpassing human-level performance on "
        "ImageNet classification. ICCV 2015, 1026-1034.",
        "10.1109/ICCV.2015.123",
    ),
    "xavier": Reference(
        "Glorot X, Bengio Y (2010). Understanding the difficulty of training deep feedforward neural networks. "
        "AISTATS 2010, PMLR 9, 249-256.",
        "https://proceedings.mlr.press/v9/glorot10a.html",
    ),
    "orthogonal": _arxiv(
        "Saxe AM, McClelland JL, Ganguli S (2014). Exact solutions to the nonlinear dynamics of learning in deep "
        "linear neural networks. ICLR 2014.",
        "1312.6120",
    ),
    # losses
    "soft-dice": _doi(
        "Milletari F, Navab N, Ahmadi SA (2016). V-Net: fully convolutional neural networks for volumetric medical "
        "image segmentation. 3DV 2016, 565-571.",
        "10.1109/3DV.2016.79",
    ),
    "focal": _doi(
        "Lin TY, Goyal P, Girshick R, He K, Dollár P (2017). Focal loss for dense object detection. ICCV 2017.",
        "10.1109/ICCV.2017.324",
    ),
    "lovasz": _doi(
        "Berman M, Rannen Triki A, Blaschko MB (2018). The Lovász-softmax loss: a tractable surrogate for the "
        "optimization of the intersection-over-union measure in neural networks. CVPR 2018, 4413-4421.",
        "10.1109/CVPR.2018.00464",
    ),
    # optimizers and schedules
    "adam": _arxiv("Kingma DP, Ba J (2015). Adam: a method for stochastic optimization. ICLR 2015.", "1412.6980"),
    "adamw": _arxiv("Loshchilov I, Hutter F (2019). Decoupled weight decay regularization. ICLR 2019.", "1711.05101"),
    "sgd": Reference(
        "Sutskever I, Martens J, Dahl G, Hinton G (2013). On the importance of initialization and momentum in deep "
        "learning. ICML 2013, PMLR 28(3), 1139-1147.",
        "https://proceedings.mlr.press/v28/sutskever13.html",
    ),
    "cosine": _arxiv(
        "Loshchilov I, Hutter F (2017). SGDR: stochastic gradient descent with warm restarts. ICLR 2017.", "1608.03983"
    ),
    "poly": _doi(
        "Chen LC, Papandreou G, Kokkinos I, Murphy K, Yuille AL (2018). DeepLab: semantic image segmentation with deep "
        "convolutional nets, atrous convolution, and fully connected CRFs. IEEE Transactions on Pattern Analysis and "
        "Machine Intelligence 40(4), 834-848.",
        "10.1109/TPAMI.2017.2699184",
    ),
    # metrics
    "dice": _doi(
        "Dice LR (1945). Measures of the amount of ecologic association between species. Ecology 26(3), 297-302.",
        "10.2307/1932409",
    ),
    "surface-dice": _doi(
        "Nikolov S, Blackwell S, Zverovitch A, et al. (2021). Clinically applicable segmentation of head and neck "
        "anatomy for radiotherapy: deep learning algorithm development and validation study. Journal of Medical "
        "Internet Research 23(7), e26151.",
        "10.2196/26151",
    ),
    # statistics
    "holm": Reference(
        "Holm S (1979). A simple sequentially rejective multiple test procedure. Scandinavian Journal of Statistics "
        "6(2), 65-70.",
        "https://www.jstor.org/stable/4615733",
    ),
    "tost": _doi(
        "Schuirmann DJ (1987). A comparison of the two one-sided tests procedure and the power approach for assessing "
        "the equivalence of average bioavailability. Journal of Pharmacokinetics and Biopharmaceutics 15(6), 657-680.",
        "10.1007/BF01068419",
    ),
    "readers-and-cases": _doi(
        "Hillis SL (2014). A marginal-mean ANOVA approach for analyzing multireader multicase radiological imaging "
        "data. Statistics in Medicine 33(2), 330-360.",
        "10.1002/sim.5926",
    ),
    "resampled": _doi(
        "Nadeau C, Bengio Y (2003). Inference for the generalization error. Machine Learning 52(3), 239-281.",
        "10.1023/A:1024068626366",
    ),
    "moderated": _doi(
        "Smyth GK (2004). Linear models and empirical Bayes methods for assessing differential expression in "
        "microarray experiments. Statistical Applications in Genetics and Molecular Biology 3(1), Article 3.",
        "10.2202/1544-6115.1027",
    ),
    # software
    "torch": _arxiv(
        "Paszke A, Gross S, Massa F, et al. (2019). PyTorch: an imperative style, high-performance deep learning "
        "library. NeurIPS 2019.",
        "1912.01703",
    ),
    "numpy": _doi(
        "Harris CR, Millman KJ, van der Walt SJ, et al. (2020). Array programming with NumPy. Nature 585, 357-362.",
        "10.1038/s41586-020-2649-2",
    ),
    "scipy": _doi(
        "Virtanen P, Gommers R, Oliphant TE, et al. (2020). SciPy 1.0: fundamental algorithms for scientific computing "
        "in Python. Nature Methods 17, 261-272.",
        "10.1038/s41592-019-0686-2",
    ),
    "SimpleITK": _doi(
        "Lowekamp BC, Chen DT, Ibáñez L, Blezek D (2013). The design of SimpleITK. Frontiers in Neuroinformatics "
        "7, 45.",
        "10.3389/fninf.2013.00045",
    ),
}
