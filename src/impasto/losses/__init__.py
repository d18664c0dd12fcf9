"""From features to numbers: how far a picture is from the photo, and from a painting.

Where each equation is:

Gatys, Ecker & Bethge 2015, arXiv:1508.06576
    1  content loss                `content.ContentLoss`, scaling "gatys"
    2  its derivative              torch's, on `kernels.ops` where that fits
    3  Gram matrix                 `styles.gram`
    4  style loss of one layer     `styles.StyleLoss`, scaling "gatys"
    5  sum over layers             `styles.MeanStyle.losses`: the terms with their shares
    6  its derivative              as 2
    7  content and style together  `objective.Objective`
Li, Wang, Liu & Hou 2017, arXiv:1701.01036
    MMD (section 3.1)              the module docstring of `styles`
    Gram loss is an MMD (3.2)      `styles.Gram`
    linear kernel (4.1)            `distributions.LinearMmd`
    polynomial kernel (4.1)        `distributions.PolynomialMmd`
    Gaussian kernel (4.1)          `distributions.GaussianMmd`
    BN statistics (4.1)            `distributions.BatchNorm`
Gatys, Bethge, Hertzmann & Shechtman 2016, arXiv:1606.05897
    colour histogram (section 4)   `pictures.colours.match_colours`
    luminance only (section 5)     `pictures.colours.match_luminance`, `with_luminance`
Gatys et al. 2017, arXiv:1611.07865
    guided Gram matrices (2)       `styles.gram` with an area
    colour control (section 5)     `settings.Settings.keep_colors`
    coarse to fine (section 6)     `paint.levels`
Others
    Sun & Saenko 2016, 1           `distributions.Covariance`
    Dowson & Landau 1982, 4        `distributions.Wasserstein`
    Mahendran & Vedaldi 2015, 6    `smoothness.total_variation`
"""
