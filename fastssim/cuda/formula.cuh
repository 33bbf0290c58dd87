// SSIM of one window and its derivatives, from four filtered maps.
//
// With pivots px, py, x' = x - px, y' = y - py, and a separable window w:
//
//     s = x' + y'      d = x' - y'
//     m_s = w*s   m_d = w*d   e_s = w*s^2   e_d = w*d^2        four filtered maps
//     v_s = e_s - m_s^2       v_d = e_d - m_d^2
//     M = mu_x + mu_y = m_s + px + py         Q = mu_x - mu_y = m_d + px - py
//     A = 2 mu_x mu_y + C1 = (M^2 - Q^2)/2 + C1          B = mu_x^2 + mu_y^2 + C1         = A + Q^2
//     C = 2 sigma_xy + C2  = (v_s - v_d)/2 + C2          D = sigma_x^2 + sigma_y^2 + C2   = C + v_d
//     SSIM = A C / (B D)
//
// B and D are written as A and C plus a square, so that SSIM(x, x) is exactly 1. Its derivatives by the maps, also
// exactly zero in Q and v_d where x = y:
//
//     f_ms = C/D M Q^2 / B^2          q_s = df/dv_s =  A/B v_d / (2 D^2)          p_s = f_ms - 2 m_s q_s
//     f_md = -C/D Q (A + B) / B^2     q_d = df/dv_d = -A/B (C + D) / (2 D^2)      p_d = f_md - 2 m_d q_d
//
// and the adjoint of the filters, w' being w mirrored:
//
//     dL/dx = w'*(p_s + p_d) + 2 s (w'*q_s) + 2 d (w'*q_d)
//     dL/dy = w'*(p_s - p_d) + 2 s (w'*q_s) - 2 d (w'*q_d)
//
// Z. Wang, A. C. Bovik, H. R. Sheikh, E. P. Simoncelli, IEEE Transactions on Image Processing 13(4), 2004. The same
// symbols and the same form as in fastssim/cpu/formula.py. With an unbiased covariance, sigma^2 and sigma_xy are multiplied
// by n / (n - 1): `twice_spread` is that factor, `spread` half of it.
//
// With a mask a, n = w*a, every filtered map is w*(a ...) / n, every derivative is divided by n before it is filtered back
// and the gradient is multiplied by a. Pixels of weight 0 may hold anything. A window with n at most LEAST_WEIGHT has
// nothing to compare: SSIM 1, not counted.

constexpr double LEAST_WEIGHT = 1e-8;

// s and d about px, py. x - y comes first: it is exact where both are close, which x - px and y - py need not be.
template <typename T>
__device__ __forceinline__ Vector<T, 2> pair_of(T x, T y, T px, T py) {
    const T d = x - y - (px - py);
    return {multiply_add(T(2), y - py, d), d};
}

template <typename T>
struct Constants {
    T c1, c2, spread, twice_spread;
};

template <typename T, bool UNBIASED, bool DERIVED = true>
struct Window {
    T m, q;        // M, Q
    T a, b, c, d;  // A, B, C, D
    T v_d;         // D - C
    T inverse;     // 1 / (B D), exact where there will be derivatives

    // v_s, v_d: variances of s and d; m, q: sum and difference of the means.
    __device__ __forceinline__ Window(T v_s, T v_d, T m, T q, const Constants<T>& constants) : m(m), q(q), v_d(v_d) {
        const T q2 = q * q;
        a = multiply_add(T(0.5), multiply_add(m, m, -q2), constants.c1);
        b = a + q2;
        c = multiply_add(constants.spread, v_s - v_d, constants.c2);
        if (UNBIASED) this->v_d *= constants.twice_spread;
        d = c + this->v_d;
        inverse = DERIVED ? reciprocal(b * d) : estimated_reciprocal(b * d);
    }

    __device__ __forceinline__ T ssim() const { return divide(a * c, b * d, inverse); }
};

// Derivatives of SSIM, with the factor 2 of the adjoint taken in: q2_s = 2 q_s, r2_d = -2 q_d.
template <typename T>
struct Derivatives {
    T f_ms, f_md, q2_s, r2_d;

    template <bool UNBIASED, bool DERIVED>
    __device__ __forceinline__ Derivatives(const Window<T, UNBIASED, DERIVED>& w, const Constants<T>& constants) {
        const T inverse_b = w.d * w.inverse, inverse_d = w.b * w.inverse;
        const T by_means = w.c * inverse_d * w.q * inverse_b * inverse_b;
        f_ms = by_means * w.m * w.q;
        f_md = -by_means * (w.a + w.b);
        T by_variances = w.a * inverse_b * inverse_d * inverse_d;
        if (UNBIASED) by_variances *= constants.twice_spread;
        q2_s = by_variances * w.v_d;
        r2_d = by_variances * (w.c + w.d);
    }
};
